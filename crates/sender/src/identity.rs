//! Who Carillon is to a receiver that demands a client certificate (RFC 8446, section 4.3.2).

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::validity::not_after;

/// How many certificates a chain may have.
pub const CHAIN_MAX: usize = 10;

/// A client certificate with its chain, and its private key. It holds a secret, so it has no `Debug`.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificates, one after the other, in DER.
    chain: Arc<[u8]>,
    /// As the HTTP client takes it.
    inner: reqwest::Identity,
    not_after: i64,
}

/// Why a certificate and a key are no identity. The texts hold nothing of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// Not in PEM, or not one to [`CHAIN_MAX`] certificates.
    #[error("must be a certificate in PEM, followed by those that vouch for it, at most 10 in all")]
    Certificate,
    /// Not one private key in PEM, or of a kind that cannot sign: RSA, ECDSA (P-256, P-384, P-521) and Ed25519 can.
    #[error("must be one private key in PEM without a passphrase: RSA, ECDSA or Ed25519")]
    Key,
    /// The key is another certificate's.
    #[error("must belong to the certificate")]
    Mismatch,
}

impl ClientIdentity {
    /// Reads a chain, its leaf first, and the leaf's private key, both in PEM.
    pub fn from_pem(certificate: &str, private_key: &str) -> Result<Self, NoIdentity> {
        // The certificate is shown to whoever may see the subscription.
        let has_key = PrivateKeyDer::pem_slice_iter(certificate.as_bytes()).next().is_some();
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| chain.len() <= CHAIN_MAX && !has_key);
        let chain = chain.ok_or(NoIdentity::Certificate)?;
        let leaf = chain.first().ok_or(NoIdentity::Certificate)?;
        let not_after = not_after(leaf).ok_or(NoIdentity::Certificate)?;
        let whole: Arc<[u8]> = chain.iter().flat_map(|certificate| certificate.iter().copied()).collect();
        // What stands beside the key would be shown, too.
        if CertificateDer::pem_slice_iter(private_key.as_bytes()).next().is_some() {
            return Err(NoIdentity::Key);
        }
        let mut keys = PrivateKeyDer::pem_slice_iter(private_key.as_bytes());
        let (Some(Ok(key)), None) = (keys.next(), keys.next()) else { return Err(NoIdentity::Key) };
        let key = default_provider().key_provider.load_private_key(key).map_err(|_| NoIdentity::Key)?;
        CertifiedKey::new(chain, key).keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => NoIdentity::Mismatch,
            _ => NoIdentity::Certificate,
        })?;
        let inner = reqwest::Identity::from_pem(format!("{certificate}\n{private_key}").as_bytes());
        Ok(Self { chain: whole, inner: inner.map_err(|_| NoIdentity::Certificate)?, not_after })
    }

    /// When the certificate expires, in seconds of Unix time; before 1970 it is negative.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The certificates, one after the other, in DER.
    pub(crate) fn chain(&self) -> &Arc<[u8]> {
        &self.chain
    }

    pub(crate) fn for_client(&self) -> reqwest::Identity {
        self.inner.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../tests/tls/client_certificate.pem");
    const KEY: &str = include_str!("../tests/tls/client_key.pem");
    const FORMER: &str = include_str!("../tests/tls/former_client_certificate.pem");
    const FORMER_KEY: &str = include_str!("../tests/tls/former_client_key.pem");

    fn refused(certificate: &str, key: &str) -> Option<NoIdentity> {
        ClientIdentity::from_pem(certificate, key).err()
    }

    #[test]
    fn a_certificate_and_its_key_are_an_identity() {
        let year_2120 = 4_733_510_400;
        let identity = ClientIdentity::from_pem(CERTIFICATE, KEY).ok().unwrap();
        assert_eq!(identity.not_after(), year_2120);
        let with_chain = format!("{CERTIFICATE}{FORMER}");
        assert_eq!(ClientIdentity::from_pem(&with_chain, KEY).ok().unwrap().not_after(), year_2120);
        let former = ClientIdentity::from_pem(FORMER, FORMER_KEY).ok().unwrap();
        assert_eq!(former.not_after(), 1_609_459_200, "that it has expired is for the caller to judge");
    }

    #[test]
    fn what_is_no_identity() {
        assert_eq!(refused(CERTIFICATE, FORMER_KEY), Some(NoIdentity::Mismatch));
        for certificate in ["", "no PEM", KEY, &CERTIFICATE.replace("MII", "AAA"), &CERTIFICATE.repeat(11)] {
            assert_eq!(refused(certificate, KEY), Some(NoIdentity::Certificate), "{certificate}");
        }
        let with_key = format!("{CERTIFICATE}{KEY}");
        assert_eq!(refused(&with_key, KEY), Some(NoIdentity::Certificate), "the certificate is shown");
        for key in [
            "",
            CERTIFICATE,
            &KEY.repeat(2),
            &KEY.replace("MI", "AA"),
            &KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        ] {
            assert_eq!(refused(CERTIFICATE, key), Some(NoIdentity::Key), "{key}");
        }
    }
}
