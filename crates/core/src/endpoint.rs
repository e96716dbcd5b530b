//! Endpoints: the URLs that deliveries are posted to.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::address::Reach;

/// The longest endpoint, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 2048;

/// A URL that was checked against [`EndpointRules`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Url);

/// In whose name requests come: the host of the deployment's public URL (CloudEvents HTTP webhook 1.0, section 4).
/// What an endpoint's owner was asked for at the handshake, and what each delivery to it carries then.
#[must_use]
pub fn request_origin(public_url: &str) -> Option<String> {
    Url::parse(public_url).ok()?.host_str().map(str::to_owned)
}

/// What the deployment allows of endpoints.
#[derive(Clone, Debug, Default)]
pub struct EndpointRules {
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// Whether plain HTTP may be used.
    pub allow_insecure: bool,
}

/// Why a URL cannot be an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Longer than [`ENDPOINT_BYTES_MAX`].
    #[error("must be at most {ENDPOINT_BYTES_MAX} bytes long")]
    TooLong,
    /// Not a URL at all.
    #[error("must be an absolute URL: {0}")]
    Malformed(#[from] url::ParseError),
    /// Another scheme than HTTPS.
    #[error("must begin with https://")]
    Scheme,
    /// User information.
    #[error("must not contain a user name or password")]
    Credentials,
    /// A part after `#`, which is never sent.
    #[error("must not contain a fragment")]
    Fragment,
    /// Port 0, at which nobody listens.
    #[error("must not name port 0")]
    Port,
    /// No host.
    #[error("must name a host")]
    Host,
    /// An address inside.
    #[error("must not point to {0}, which is not a public address")]
    Inside(IpAddr),
}

impl EndpointRules {
    /// Checks a URL as far as that goes without asking the DNS. The address that a name stands for is checked when a
    /// connection is made.
    pub fn check(&self, text: &str) -> Result<Endpoint, EndpointError> {
        if text.len() > ENDPOINT_BYTES_MAX {
            return Err(EndpointError::TooLong);
        }
        let url = Url::parse(text)?;
        if url.scheme() != "https" && !(self.allow_insecure && url.scheme() == "http") {
            return Err(EndpointError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(EndpointError::Fragment);
        }
        if url.port() == Some(0) {
            return Err(EndpointError::Port);
        }
        match url.host() {
            None | Some(Host::Domain("")) => Err(EndpointError::Host),
            Some(host) => match address_of(&host) {
                Some(address) if !self.reach.permits(address) => Err(EndpointError::Inside(address)),
                _ => Ok(Endpoint(url)),
            },
        }
    }
}

impl Endpoint {
    /// One that was checked when it was written; where it leads is checked again whenever it is connected to.
    pub fn stored(text: &str) -> Result<Self, EndpointError> {
        Ok(Self(Url::parse(text)?))
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port: whom requests to it reach.
    #[must_use]
    pub fn origin(&self) -> url::Origin {
        self.0.origin()
    }

    /// The address that the URL itself states, in whatever notation; `None` if its host is a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.host().as_ref().and_then(address_of)
    }
}

/// As it was stored; see [`Endpoint::stored`].
impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        Self::stored(&text)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0.into()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn address_of(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_endpoint() {
        let rules = EndpointRules::default();
        assert_eq!(
            rules.check("https://example.com/hook?a=1").unwrap().to_string(),
            "https://example.com/hook?a=1"
        );
        for (text, error) in [
            ("http://example.com", EndpointError::Scheme),
            ("ftp://example.com", EndpointError::Scheme),
            ("https://user@example.com", EndpointError::Credentials),
            ("https://:secret@example.com", EndpointError::Credentials),
            ("https://example.com/#top", EndpointError::Fragment),
            (&format!("https://example.com/{}", "x".repeat(ENDPOINT_BYTES_MAX)), EndpointError::TooLong),
        ] {
            assert_eq!(rules.check(text), Err(error), "{text}");
        }
        assert!(matches!(rules.check("/hook"), Err(EndpointError::Malformed(_))));
        for inside in [
            "https://127.0.0.1",
            "https://0x7f.1",
            "https://017700000001",
            "https://2130706433",
            "https://[::1]",
        ] {
            assert!(matches!(rules.check(inside), Err(EndpointError::Inside(_))), "{inside}");
        }
    }

    #[test]
    fn the_origin_is_the_host_alone() {
        assert_eq!(
            request_origin("https://Hooks.Example.com:8443/base"),
            Some("hooks.example.com".to_owned())
        );
        assert_eq!(request_origin("hooks"), None);
    }

    #[test]
    fn http_and_inside_addresses_are_the_deployers_to_allow() {
        let rules = EndpointRules { reach: "127.0.0.0/8".parse().unwrap(), allow_insecure: true };
        assert!(rules.check("http://127.0.0.1:8080/hook").is_ok());
        assert!(rules.check("http://10.0.0.1/hook").is_err());
    }
}
