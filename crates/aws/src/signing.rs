//! Private keys: made, kept as PKCS#8 (RFC 5958) for the vault to seal, and ready to sign.
//!
//! All of them are deterministic. RSA (PKCS#1 v1.5) and Ed25519 are so by nature; ECDSA is by RFC 6979, which the library
//! that does the rest does not have.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use carillon_core::keys::{KeyAlgorithm, NotSigned, PublicJwk, Sign};
use data_encoding::BASE64URL_NOPAD;
use p256::ecdsa::signature::Signer as _;
use secrecy::SecretSlice;

use crate::error::AwsError;

/// The public key of RSA with 2048 bits and the exponent 65,537 (RFC 8017, appendix A.1.1) around its modulus.
const BEFORE_MODULUS: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
const AFTER_MODULUS: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
const EXPONENT: [u8; 3] = [0x01, 0x00, 0x01];

/// What an uncompressed point on a curve begins with (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

/// A private key that is ready to sign. It has no `Debug`.
pub struct PrivateKey(Pair);

enum Pair {
    Rsa { pair: RsaKeyPair, random: SystemRandom },
    P256(p256::ecdsa::SigningKey),
    Ed25519(Ed25519KeyPair),
}

/// A new key: its public part, and its private part in PKCS#8, to be sealed.
#[derive(Debug)]
pub struct NewKey {
    /// What receivers verify with.
    pub public: PublicJwk,
    /// What signs, wiped from memory on drop.
    pub pkcs8: SecretSlice<u8>,
}

impl NewKey {
    /// Makes a key from the system's source of randomness. For RSA that takes a moment.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, AwsError> {
        generate(algorithm).ok_or(AwsError::Secret("made"))
    }
}

impl PrivateKey {
    /// Makes a key ready that was kept in PKCS#8.
    pub fn from_pkcs8(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Result<Self, AwsError> {
        pair(algorithm, pkcs8).map(Self).ok_or(AwsError::Secret("used as a key"))
    }
}

impl Sign for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotSigned> {
        match &self.0 {
            Pair::Rsa { pair, random } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature);
                signed.map(|()| signature).map_err(|_| NotSigned)
            }
            Pair::P256(key) => {
                let signature: Result<p256::ecdsa::Signature, _> = key.try_sign(message);
                signature.map(|signature| signature.to_bytes().to_vec()).map_err(|_| NotSigned)
            }
            Pair::Ed25519(pair) => {
                pair.try_sign(message).map(|signature| signature.as_ref().to_vec()).map_err(|_| NotSigned)
            }
        }
    }
}

/// Whether a message was signed by the Ed25519 key that has this public part. Keys of other algorithms sign tokens, which
/// receivers alone verify.
#[must_use]
pub fn verifies(public: &PublicJwk, message: &[u8], signature: &[u8]) -> bool {
    let PublicJwk::Ed25519 { x, .. } = public else { return false };
    let key = BASE64URL_NOPAD.decode(x.as_bytes());
    key.is_ok_and(|key| UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok())
}

fn generate(algorithm: KeyAlgorithm) -> Option<NewKey> {
    let (public, pkcs8) = match algorithm {
        KeyAlgorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
            let public = pair.public_key().as_ref();
            let modulus = public.strip_prefix(&BEFORE_MODULUS)?.strip_suffix(&AFTER_MODULUS)?;
            let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            (PublicJwk::rsa(modulus, &EXPONENT), pkcs8.as_ref().to_vec())
        }
        KeyAlgorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
            let (&UNCOMPRESSED, point) = pair.public_key().as_ref().split_first()? else { return None };
            let (x, y) = point.split_at_checked(32)?;
            let public = PublicJwk::p256(x.try_into().ok()?, y.try_into().ok()?);
            (public, pair.to_pkcs8v1().ok()?.as_ref().to_vec())
        }
        KeyAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().ok()?;
            let public = PublicJwk::ed25519(pair.public_key().as_ref().try_into().ok()?);
            (public, pair.to_pkcs8v1().ok()?.as_ref().to_vec())
        }
    };
    Some(NewKey { public, pkcs8: pkcs8.into() })
}

fn pair(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Option<Pair> {
    Some(match algorithm {
        KeyAlgorithm::Rs256 => {
            Pair::Rsa { pair: RsaKeyPair::from_pkcs8(pkcs8).ok()?, random: SystemRandom::new() }
        }
        KeyAlgorithm::Es256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
            let scalar = pair.private_key().as_be_bytes().ok()?;
            Pair::P256(p256::ecdsa::SigningKey::from_slice(scalar.as_ref()).ok()?)
        }
        KeyAlgorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::PublicKeyComponents;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256};
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Whether a library that did not make it takes a signature by what receivers are shown of the key.
    fn taken(public: &PublicJwk, message: &[u8], signature: &[u8]) -> bool {
        let bytes = |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        let verified = match public {
            PublicJwk::Rsa { n, e } => PublicKeyComponents { n: bytes(n), e: bytes(e) }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            PublicJwk::P256 { x, y, .. } => {
                let point = [vec![UNCOMPRESSED], bytes(x), bytes(y)].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            PublicJwk::Ed25519 { x, .. } => {
                UnparsedPublicKey::new(&ED25519, bytes(x)).verify(message, signature)
            }
        };
        verified.is_ok()
    }

    #[test]
    fn every_key_signs_what_others_verify_with_the_same_bytes_each_time() {
        for algorithm in KeyAlgorithm::ALL {
            let NewKey { public, pkcs8 } = NewKey::generate(algorithm).unwrap();
            assert_eq!(public.algorithm(), algorithm);
            let [one, other] =
                [(); 2].map(|()| PrivateKey::from_pkcs8(algorithm, pkcs8.expose_secret()).unwrap());
            let signature = one.sign(b"a message").unwrap();
            assert!(taken(&public, b"a message", &signature), "{algorithm:?}");
            assert!(!taken(&public, b"another", &signature), "{algorithm:?}");
            assert_eq!(verifies(&public, b"a message", &signature), algorithm == KeyAlgorithm::EdDsa);
            assert!(!verifies(&public, b"another", &signature), "{algorithm:?}");
            assert_eq!(one.sign(b"a message").unwrap(), signature, "{algorithm:?}");
            assert_eq!(other.sign(b"a message").unwrap(), signature, "{algorithm:?}");
            assert_ne!(NewKey::generate(algorithm).unwrap().public, public, "{algorithm:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for algorithm in KeyAlgorithm::ALL {
            assert!(PrivateKey::from_pkcs8(algorithm, b"").is_err(), "{algorithm:?}");
        }
        let NewKey { pkcs8, .. } = NewKey::generate(KeyAlgorithm::EdDsa).unwrap();
        assert!(PrivateKey::from_pkcs8(KeyAlgorithm::Es256, pkcs8.expose_secret()).is_err());
        assert!(format!("{pkcs8:?}").contains("REDACTED"));
    }

    #[test]
    fn agrees_with_the_vector_of_rfc_6979() {
        // Appendix A.2.5, SHA-256, message "sample".
        let hex = |text: &str| data_encoding::HEXUPPER.decode(text.as_bytes()).unwrap();
        let scalar = hex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721");
        let key = PrivateKey(Pair::P256(p256::ecdsa::SigningKey::from_slice(&scalar).unwrap()));
        assert_eq!(
            key.sign(b"sample").unwrap(),
            hex(concat!(
                "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
                "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
            ))
        );
    }

    #[test]
    fn agrees_with_the_vector_of_rfc_8037() {
        // Appendix A.4: the key of RFC 8032, section 7.1, test 1.
        let seed =
            data_encoding::BASE64URL_NOPAD.decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = PrivateKey(Pair::Ed25519(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()));
        assert_eq!(
            data_encoding::BASE64URL_NOPAD
                .encode(&key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc").unwrap()),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }
}
