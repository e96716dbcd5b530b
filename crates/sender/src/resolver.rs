//! Names become addresses here, and only addresses in reach come out.

use std::net::{IpAddr, SocketAddr};

use carillon_core::address::Reach;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver, its answers checked.
#[derive(Clone, Debug)]
pub(crate) struct GuardedResolver {
    reach: Reach,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotResolved {
    /// One of its addresses is out of reach. That there are others does not help: whoever owns the name chose to point
    /// it inside.
    #[error("the name stands for {0}, which is not a public address")]
    Inside(IpAddr),
    /// It has none, or the DNS did not answer.
    #[error("the name has no address")]
    NoAddress(#[source] Option<std::io::Error>),
}

impl GuardedResolver {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let addresses: Vec<SocketAddr> =
                found.map_err(|error| NotResolved::NoAddress(Some(error)))?.collect();
            if addresses.is_empty() {
                return Err(NotResolved::NoAddress(None).into());
            }
            match addresses.iter().find(|address| !reach.permits(address.ip())) {
                Some(inside) => Err(NotResolved::Inside(inside.ip()).into()),
                None => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}
