//! A receiver that costs next to nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::{Result, bail};
use http::HeaderMap;
use standardwebhooks::Webhook;

use super::wire::{Reply, Request, serve};

/// Of so many requests the signature of one is looked at.
const VERIFIED_EVERY: u64 = 100;

/// The headers that signatures cover.
const SIGNED: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// A receiver on a free port of this machine, which answers 204 to everything until this program ends.
#[derive(Clone, Debug)]
pub struct Sink {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    received: AtomicU64,
    bytes: AtomicU64,
    verified: AtomicU64,
    secrets: RwLock<HashMap<String, String>>,
    refused: Mutex<Option<String>>,
}

impl Sink {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let taking = Arc::clone(&shared);
        let address = serve(move |request| {
            taking.take(&request);
            Some(Reply { status: 204, headers: String::new(), body: Vec::new() })
        })?;
        Ok(Self { url: format!("http://{address}"), shared })
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// What comes to this path is signed with this secret.
    pub fn trust(&self, path: &str, secret: &str) {
        let mut secrets = self.shared.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(path.to_owned(), secret.to_owned());
    }

    /// How many requests came since it was asked last. Fails if a signature was refused.
    pub fn take(&self) -> Result<u64> {
        if let Some(refused) = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bail!("a request to {refused}");
        }
        Ok(self.shared.received.swap(0, Relaxed))
    }

    /// How many signatures were verified so far.
    #[must_use]
    pub fn verified(&self) -> u64 {
        self.shared.verified.load(Relaxed)
    }
}

impl Shared {
    fn take(&self, request: &Request) {
        self.bytes.fetch_add(u64::try_from(request.body.len()).unwrap_or_default(), Relaxed);
        if self.received.fetch_add(1, Relaxed).is_multiple_of(VERIFIED_EVERY)
            && let Some(verdict) = self.verdict(request)
        {
            match verdict {
                Ok(()) => _ = self.verified.fetch_add(1, Relaxed),
                Err(error) => {
                    let told = format!("{} has a wrong signature: {error:#}", request.path());
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
                }
            }
        }
    }

    /// Whether a request is rightly signed; `None` where no secret is known.
    fn verdict(&self, request: &Request) -> Option<Result<()>> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let secret = secrets.get(request.path())?;
        Some(verified(secret, request))
    }
}

fn verified(secret: &str, request: &Request) -> Result<()> {
    let mut headers = HeaderMap::new();
    for name in SIGNED {
        headers.insert(name, request.header(name).unwrap_or_default().parse()?);
    }
    Ok(Webhook::new(secret)?.verify(&request.body, &headers)?)
}
