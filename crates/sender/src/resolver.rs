//! Names become addresses here, and only addresses in reach come out.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use carillon_core::address::Reach;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A look-up under way.
pub type Looking<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// How the addresses of a name are found. What is found is guarded by [`crate::Sender`], whoever found it.
pub trait Lookup: Debug + Send + Sync {
    /// All addresses of the name at this moment.
    fn addresses<'a>(&'a self, name: &'a str) -> Looking<'a>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses<'a>(&'a self, name: &'a str) -> Looking<'a> {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
        })
    }
}

/// Why an endpoint's host cannot be connected to. The texts are for whoever wrote the endpoint: they do not tell which
/// address a name stands for, since the name may be one of the deployment's own network.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// One of its addresses is out of reach. That there are others does not help: whoever owns the name chose to point
    /// it inside.
    #[error("must not point to an address that is not public")]
    Inside(IpAddr),
    /// It has none, or the DNS did not answer.
    #[error("must name a host that has an address")]
    NoAddress(#[source] Option<io::Error>),
}

/// A look-up whose answers are checked.
#[derive(Clone, Debug)]
pub(crate) struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    reach: Reach,
}

impl GuardedResolver {
    pub(crate) fn new(lookup: impl Lookup + 'static, reach: Reach) -> Self {
        Self { lookup: Arc::new(lookup), reach }
    }

    /// Whether a connection to this address may be made.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(), Unresolved> {
        if self.reach.permits(address) { Ok(()) } else { Err(Unresolved::Inside(address)) }
    }

    /// The addresses of a name: at least one, and all in reach.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let found = self.lookup.addresses(name).await;
        let addresses = found.map_err(|error| Unresolved::NoAddress(Some(error)))?;
        if addresses.is_empty() {
            return Err(Unresolved::NoAddress(None));
        }
        addresses.iter().try_for_each(|address| self.admit(*address))?;
        Ok(addresses)
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.clone();
        Box::pin(async move {
            let addresses = guarded.addresses(name.as_str()).await?;
            // The port is the URL's, which the caller puts in.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
