//! When a certificate expires: the one thing that is read of its inside.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity (RFC 5280, section 4.1.2.5), in seconds of Unix time. `None`: it is no certificate
/// in DER.
pub(crate) fn not_after(certificate: &[u8]) -> Option<i64> {
    let certificate = Tlv::of_kind(SEQUENCE, certificate)?;
    let mut fields = Tlv::of_kind(SEQUENCE, certificate.value)?.value;
    // Version (absent in the first one), serial number, signature's algorithm, issuer; then the validity.
    if Tlv::read(fields)?.tag == VERSION {
        fields = Tlv::read(fields)?.rest;
    }
    for _ in 0..3 {
        fields = Tlv::read(fields)?.rest;
    }
    let not_before = Tlv::read(Tlv::of_kind(SEQUENCE, fields)?.value)?;
    let Tlv { tag, value, .. } = Tlv::read(not_before.rest)?;
    let text = std::str::from_utf8(value).ok()?;
    let text = match tag {
        // Two digits of the year: those from 50 on are of the last century.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    // The last second of the year 9999 says that there is no end (RFC 5280, section 4.1.2.5), a day after time's own end.
    Some(TimeZone::UTC.to_timestamp(time).unwrap_or(Timestamp::MAX).as_second())
}

/// An element of DER (X.690, section 8.1), and what follows it.
struct Tlv<'a> {
    tag: u8,
    value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Tlv<'a> {
    fn of_kind(tag: u8, bytes: &'a [u8]) -> Option<Self> {
        Self::read(bytes).filter(|element| element.tag == tag)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&tag, bytes) = bytes.split_first()?;
        let (&first, bytes) = bytes.split_first()?;
        let (length, bytes) = match first {
            0..=0x7f => (usize::from(first), bytes),
            // No certificate is longer than four bytes of length can say.
            0x81..=0x84 => {
                let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), bytes)
            }
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(length)?;
        Some(Self { tag, value, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as far as it is read, with this end of its validity.
    fn certificate(version: &[u8], tag: u8, end: &str) -> Vec<u8> {
        let element =
            |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()][..], value].concat();
        let validity = [element(UTC_TIME, b"200101000000Z"), element(tag, end.as_bytes())].concat();
        let rest =
            [element(2, &[1]), element(SEQUENCE, &[]), element(SEQUENCE, &[]), element(SEQUENCE, &validity)];
        element(SEQUENCE, &element(SEQUENCE, &[version, &rest.concat()].concat()))
    }

    #[test]
    fn both_forms_of_time_and_both_of_versions() {
        let version = [VERSION, 3, 2, 1, 2];
        let end = |tag, end| not_after(&certificate(&version, tag, end));
        assert_eq!(end(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(end(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(end(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        let endless = not_after(&certificate(&[], GENERALIZED_TIME, "99991231235959Z"));
        assert_eq!(endless, Some(Timestamp::MAX.as_second()));
        for (tag, text) in [(UTC_TIME, ""), (UTC_TIME, "4912312359Z"), (GENERALIZED_TIME, "soon"), (2, "1")] {
            assert_eq!(end(tag, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_cut_has_no_end() {
        let whole = certificate(&[], UTC_TIME, "491231235959Z");
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None);
        }
        assert_eq!(not_after(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
