//! Identifiers: a type for each, so that none can stand where another belongs.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::time::UnixMillis;

/// Crockford's base 32 in lower case: keeps the order of the bytes, has no look-alikes and is safe in URLs.
pub(crate) static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    #[expect(clippy::expect_used, reason = "a constant alphabet, covered by every test of this module")]
    specification.encoding().expect("32 distinct symbols")
});

/// The signs of the longest id behind its prefix.
const SIGNS_MAX: usize = 32;

/// In one piece: ids are written many times for each delivery.
fn write_base32(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let mut signs = [0; SIGNS_MAX];
    let signs = signs.get_mut(..BASE32.encode_len(bytes.len())).ok_or(fmt::Error)?;
    BASE32.encode_mut(bytes, signs);
    f.write_str(std::str::from_utf8(signs).map_err(|_| fmt::Error)?)
}

/// A text that is no identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct NotAnId {
    kind: &'static str,
}

impl NotAnId {
    pub(crate) fn of(kind: &'static str) -> Self {
        Self { kind }
    }
}

/// Serialised as its text, parsed with its checks.
macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Some bytes behind a prefix that tells the kind.
macro_rules! prefixed {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                write_base32(f, &self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.strip_prefix($prefix).and_then(decode).map(Self).ok_or(NotAnId { kind: $kind })
            }
        }

        as_text!($name);
    };
}

prefixed!(
    /// A subscription: `sub_` and a UUIDv7, so that ids sort by the time of creation.
    SubscriptionId,
    16,
    "sub_",
    "subscription id"
);

prefixed!(
    /// A delivery: `dlv_`, and the digest of the event's identity blended with one of the subscription's. It is what
    /// `webhook-id` says, the same on every attempt and in every round.
    DeliveryId,
    20,
    "dlv_",
    "delivery id"
);

prefixed!(
    /// A job: `job_` and a UUIDv7.
    JobId,
    16,
    "job_",
    "job id"
);

prefixed!(
    /// An inbox: `inbox_` and a UUIDv7, so that ids sort by the time of creation.
    InboxId,
    16,
    "inbox_",
    "inbox id"
);

prefixed!(
    /// An event as the API names it: `evt_` and its [`EventDigest`].
    EventId,
    20,
    "evt_",
    "event id"
);

impl SubscriptionId {
    /// Made `now`, told from others of the same moment by ten random bytes.
    #[must_use]
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random).into_bytes())
    }

    /// One of `shards` parts that subscriptions are spread over, by what is random of the id.
    #[must_use]
    pub fn shard(self, shards: u8) -> u8 {
        self.0[15] % shards
    }
}

impl JobId {
    /// Made `now`, told from others of the same moment by ten random bytes.
    #[must_use]
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random).into_bytes())
    }
}

impl InboxId {
    /// Made `now`, told from others of the same moment by ten random bytes.
    #[must_use]
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random).into_bytes())
    }
}

impl DeliveryId {
    /// The delivery of an event to a subscription: computed, so that doing a step twice does no harm.
    #[must_use]
    pub fn of(event: &EventKey, subscription: SubscriptionId) -> Self {
        Self(blend(event.digest.0, &event.workspace, subscription))
    }

    /// The event of a delivery to this subscription: whoever knows the two finds the delivery's row.
    #[must_use]
    pub fn event(self, workspace: &WorkspaceId, subscription: SubscriptionId) -> EventKey {
        let digest = EventDigest(blend(self.0, workspace, subscription));
        EventKey { workspace: workspace.clone(), digest }
    }

    /// A number that is the same whenever it is asked for, and spread evenly over deliveries and `salt`s: what jitter
    /// is taken from.
    #[must_use]
    pub fn spread(self, salt: u64) -> u32 {
        u32::from_be_bytes(digest(&[&self.0, &salt.to_be_bytes()]))
    }
}

impl From<EventDigest> for EventId {
    fn from(digest: EventDigest) -> Self {
        Self(digest.0)
    }
}

impl From<EventId> for EventDigest {
    fn from(id: EventId) -> Self {
        Self(id.0)
    }
}

/// A tenant's name in URLs and keys: 1 to 63 of `a` to `z`, digits, `-` and `_`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(String);

impl WorkspaceId {
    /// `ws_` and a `UUIDv7`, for a workspace whose creator named none.
    #[must_use]
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(format!("ws_{}", BASE32.encode_display(uuid_v7(now, random).as_bytes())))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkspaceId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=63).contains(&text.len())
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAnId { kind: "workspace id" }) }
    }
}

as_text!(WorkspaceId);

/// A name that others gave: its characters are bounded so that it can stand in URLs, keys and headers as it is.
macro_rules! given {
    ($(#[$doc:meta])* $name:ident, $chars_max:literal, $others:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The most characters that it has.
            pub const CHARS_MAX: usize = $chars_max;

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || $others.contains(&byte);
                let fits = (1..=Self::CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed);
                if fits { Ok(Self(text.to_owned())) } else { Err(NotAnId { kind: $kind }) }
            }
        }

        as_text!($name);
    };
}

given!(
    /// A third party's application or authorization server, as the platform names it: 1 to 64 of letters, digits and
    /// `. _ : ~ -`.
    SubscriberId,
    64,
    b"._:~-",
    "subscriber id"
);

given!(
    /// An API client, as the issuer of its tokens names it: 1 to 128 of letters, digits and `. _ : ~ - @ | + =`.
    ClientId,
    128,
    b"._:~-@|+=",
    "client id"
);

/// A digest of an event's `source` and `id`: its identity within a workspace in 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventDigest([u8; 20]);

impl EventDigest {
    /// Sorts before all others.
    pub const LEAST: Self = Self([0; 20]);

    /// Of the two attributes that identify a CloudEvent (CloudEvents 1.0, section "id").
    #[must_use]
    pub fn of(source: &str, id: &str) -> Self {
        Self(digest(&[source.as_bytes(), id.as_bytes()]))
    }

    /// One of `count` shards, the same for the same event.
    #[must_use]
    pub fn shard(self, count: u8) -> u8 {
        self.0[0] % count
    }
}

impl fmt::Display for EventDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_base32(f, &self.0)
    }
}

impl FromStr for EventDigest {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        decode(text).map(Self).ok_or(NotAnId { kind: "event digest" })
    }
}

as_text!(EventDigest);

/// An event's identity: its workspace and the digest of its `source` and `id`. As text `WORKSPACE/DIGEST`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The tenant that it was published to.
    pub workspace: WorkspaceId,
    /// Which of its events.
    pub digest: EventDigest,
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workspace, self.digest)
    }
}

impl FromStr for EventKey {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (workspace, digest) = text.split_once('/').ok_or(NotAnId { kind: "event key" })?;
        Ok(Self { workspace: workspace.parse()?, digest: digest.parse()? })
    }
}

as_text!(EventKey);

/// The first bytes of a SHA-256 over `parts`, each behind its length, so that no two lists of parts run together.
fn digest<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let full: [u8; 32] = hasher.finalize().into();
    let mut first = [0; N];
    first.copy_from_slice(&full[..N]);
    first
}

/// These bytes and a digest of workspace and subscription, by exclusive or: done twice, it undoes itself.
fn blend(bytes: [u8; 20], workspace: &WorkspaceId, subscription: SubscriptionId) -> [u8; 20] {
    let mask: [u8; 20] = digest(&[workspace.as_str().as_bytes(), &subscription.0]);
    std::array::from_fn(|place| bytes[place] ^ mask[place])
}

/// RFC 9562, section 5.7.
fn uuid_v7(now: UnixMillis, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid()
}

pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE32.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_ids_are_each_others_inverse() {
        let subscription = SubscriptionId::new(UnixMillis(1_795_339_800_007), [7; 10]);
        assert_eq!(subscription.to_string().parse(), Ok(subscription));
        let event =
            EventKey { workspace: "acme".parse().unwrap(), digest: EventDigest::of("/consents", "1") };
        assert_eq!(event.to_string().parse(), Ok(event.clone()));
        let delivery = DeliveryId::of(&event, subscription);
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        assert!(delivery.to_string().starts_with("dlv_") && !delivery.to_string().contains('.'));
    }

    #[test]
    fn a_delivery_leads_to_its_event() {
        let event = EventKey { workspace: "acme".parse().unwrap(), digest: EventDigest::of("/s", "1") };
        let subscription = |byte| SubscriptionId::new(UnixMillis(1), [byte; 10]);
        let delivery = DeliveryId::of(&event, subscription(1));
        assert_eq!(delivery.event(&event.workspace, subscription(1)), event);
        assert_ne!(delivery.event(&event.workspace, subscription(2)), event);
        assert_ne!(delivery.event(&"other".parse().unwrap(), subscription(1)).digest, event.digest);
        assert_ne!(delivery, DeliveryId::of(&event, subscription(2)));
        assert_eq!(EventDigest::from(EventId::from(event.digest)), event.digest);
    }

    #[test]
    fn a_kind_is_not_another_kind() {
        let subscription = SubscriptionId::new(UnixMillis(1), [0; 10]).to_string();
        assert!(subscription.parse::<DeliveryId>().is_err());
        for text in ["", "sub_", "sub_zz", &subscription.to_uppercase(), &format!("{subscription}0")] {
            assert!(text.parse::<SubscriptionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn workspace_ids_are_safe_in_urls_and_keys() {
        for text in ["a", "acme", "acme-eu_2", &"a".repeat(63)] {
            assert!(text.parse::<WorkspaceId>().is_ok(), "{text}");
        }
        for text in ["", "-a", "_a", "A", "a/b", "a#b", "ä", "a b", &"a".repeat(64)] {
            assert!(text.parse::<WorkspaceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_others_gave_are_safe_in_urls_and_keys() {
        for text in ["tpp-1", "3f0c1b52-8a8e-4b43-9a53-95fbbd5d5e7e", "urn:org:1~a", "A.b_c"] {
            assert!(text.parse::<SubscriberId>().is_ok(), "{text}");
            assert!(text.parse::<ClientId>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a/b", "a#b", "a%b", "a,b", "ä", "a?b", &"a".repeat(129)] {
            assert!(text.parse::<SubscriberId>().is_err(), "{text}");
            assert!(text.parse::<ClientId>().is_err(), "{text}");
        }
        assert!("auth0|5f7c@clients".parse::<ClientId>().is_ok());
    }

    #[test]
    fn source_and_id_do_not_run_together() {
        assert_ne!(EventDigest::of("ab", "c"), EventDigest::of("a", "bc"));
    }
}
