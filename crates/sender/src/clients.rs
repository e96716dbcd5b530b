//! The HTTP clients: one for all, and one for each client certificate that is in use.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use carillon_core::endpoint::EndpointRules;
use reqwest::redirect::Policy;
use reqwest::tls::Version;
use reqwest::{Client, ClientBuilder};
use tokio::time::Instant;

use crate::CONNECT_TIMEOUT;
use crate::identity::ClientIdentity;
use crate::resolver::GuardedResolver;
use crate::reuse;

/// How long an idle connection is kept. Longer, and most would be closed by the other side while the function is frozen.
const IDLE_KEPT: Duration = Duration::from_secs(50);

/// How many idle connections to one host are kept: as many as a batch has tasks.
const IDLE_PER_HOST_MAX: usize = 10;

/// How many clients with a certificate of their own are kept. Each has its connections, and its copy of the trust store
/// (some 200 KB).
const IDENTIFIED_MAX: usize = 16;

/// How many bytes a receiver may send ahead on one HTTP/2 stream: no more of a body is read anyhow.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same on one HTTP/2 connection, over all its streams.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// The most that the headers of an answer over HTTP/2 may take, in bytes. Over HTTP/1.1 hyper bounds them: 100 headers, and
/// some 400 KiB.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

const USER_AGENT: &str = concat!("Carillon/", env!("CARGO_PKG_VERSION"));

/// How many hosts may have idle connections of one client: Lambda lets a function have 1,024 open files in all.
const HOSTS_MAX: usize = 60;

/// Every client there is.
#[derive(Debug)]
pub(crate) struct Clients {
    checked: Mutex<Shared>,
    /// Takes whatever certificate a receiver shows. Only deployments for tests have it, those that allow plain HTTP too,
    /// once it is wanted: to make a client takes a while.
    unchecked: Mutex<Option<Client>>,
    identified: Mutex<Vec<Identified>>,
    resolver: GuardedResolver,
    allow_insecure: bool,
}

/// The client for all receivers without more to it, and the hosts that it was used for.
#[derive(Debug)]
struct Shared {
    client: First,
    hosts: HashSet<String>,
}

/// The first client is made beside the start of the function: reading the platform's certificates takes milliseconds, and
/// nobody needs them before a request is sent.
#[derive(Debug)]
enum First {
    Begun(Option<JoinHandle<reqwest::Result<Client>>>),
    Made(Client),
}

/// A client with a certificate of its own. What it shows is in its connections, so they are for that certificate alone.
#[derive(Debug)]
struct Identified {
    /// All of the chain: its leaf determines the private key, and what follows may be mended.
    chain: Arc<[u8]>,
    check_certificates: bool,
    client: Client,
    used_at: Instant,
}

impl Clients {
    pub(crate) fn new(resolver: GuardedResolver, rules: &EndpointRules) -> Self {
        let allow_insecure = rules.allow_insecure;
        let builder = guarded(&resolver, allow_insecure);
        let client = First::Begun(Some(thread::spawn(move || builder.build())));
        let (unchecked, identified) = (Mutex::default(), Mutex::default());
        let checked = Mutex::new(Shared { client, hosts: HashSet::new() });
        Self { checked, unchecked, identified, resolver, allow_insecure }
    }

    /// The client for a receiver. A deployment that demands HTTPS has none that does not check.
    pub(crate) fn of(
        &self,
        host: &str,
        check_certificates: bool,
        identity: Option<&ClientIdentity>,
    ) -> reqwest::Result<Client> {
        let check_certificates = check_certificates || !self.allow_insecure;
        match identity {
            Some(identity) => self.identified(check_certificates, identity),
            None if check_certificates => self.checked(host),
            None => self.unchecked(),
        }
    }

    fn unchecked(&self) -> reqwest::Result<Client> {
        let mut kept = self.unchecked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = unchecked(guarded(&self.resolver, self.allow_insecure)).build()?;
        Ok(kept.insert(client).clone())
    }

    /// The client for this host. Once it was used for too many, a new one takes its place, and its idle connections are
    /// closed.
    fn checked(&self, host: &str) -> reqwest::Result<Client> {
        let mut shared = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.hosts.contains(host) {
            if shared.hosts.len() == HOSTS_MAX {
                shared.client = First::Made(guarded(&self.resolver, self.allow_insecure).build()?);
                shared.hosts.clear();
            }
            shared.hosts.insert(host.to_owned());
        }
        shared.client.made(|| guarded(&self.resolver, self.allow_insecure))
    }

    /// The client that shows this certificate: the one that is kept, or a new one. Those that nobody used for as long as an
    /// idle connection is kept have none left, and are dropped; so is the one that was not used for longest if there are
    /// too many.
    fn identified(&self, check_certificates: bool, identity: &ClientIdentity) -> reqwest::Result<Client> {
        let now = Instant::now();
        let mut kept = self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| now.duration_since(one.used_at) < IDLE_KEPT);
        let found = kept
            .iter_mut()
            .find(|one| one.chain == *identity.chain() && one.check_certificates == check_certificates);
        if let Some(found) = found {
            found.used_at = now;
            return Ok(found.client.clone());
        }
        let builder = guarded(&self.resolver, self.allow_insecure).identity(identity.for_client());
        let client = if check_certificates { builder } else { unchecked(builder) }.build()?;
        if kept.len() == IDENTIFIED_MAX {
            let oldest = kept.iter().enumerate().min_by_key(|(_, one)| one.used_at);
            if let Some((index, _)) = oldest {
                kept.swap_remove(index);
            }
        }
        let chain = Arc::clone(identity.chain());
        kept.push(Identified { chain, check_certificates, client: client.clone(), used_at: now });
        Ok(client)
    }
}

impl First {
    /// The client, waited for if it is not there yet; one that could not be made is tried again.
    fn made(&mut self, builder: impl FnOnce() -> ClientBuilder) -> reqwest::Result<Client> {
        let client = match self {
            Self::Made(client) => return Ok(client.clone()),
            Self::Begun(begun) => begun.take().and_then(|begun| begun.join().ok()),
        };
        let client = client.unwrap_or_else(|| builder().build())?;
        *self = Self::Made(client.clone());
        Ok(client)
    }
}

/// What all clients have in common. Their trust store is the platform's; they speak TLS 1.2 and 1.3, and HTTP/2 where the
/// receiver chooses it by ALPN. There are no cookies and no decompression, since reqwest's features for them are off.
#[expect(clippy::disallowed_methods, reason = "the one place where an HTTP client is built")]
fn guarded(resolver: &GuardedResolver, allow_insecure: bool) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_KEPT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .tls_version_min(Version::TLS_1_2)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .https_only(!allow_insecure)
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(resolver.clone())
        .connector_layer(reuse::layer())
}

fn unchecked(builder: ClientBuilder) -> ClientBuilder {
    builder.tls_danger_accept_invalid_certs(true)
}
