//! An address where a receiver can be found only at times.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, sleep};

/// How soon the address is tried again that somebody else has taken while the door was shut.
const TAKEN_PAUSE: Duration = Duration::from_millis(50);

/// Leads to a server on this machine while it is open; while it is shut, connections are refused.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    open: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Door {
    /// A door to the server with this URL, open.
    pub async fn to(url: &str) -> Result<Self> {
        let target = url.strip_prefix("http://").context("it is no plain HTTP URL")?;
        let target: SocketAddr = target.trim_end_matches('/').parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (open, opened) = watch::channel(true);
        let keeper = tokio::spawn(keep(listener, target, opened));
        Ok(Self { address, open, keeper })
    }

    /// The URL of a path behind it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Opens it.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Shuts it, and ends the connections that go through it.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(listener: TcpListener, target: SocketAddr, mut opened: watch::Receiver<bool>) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    // The door is gone when there is nobody to open it.
    while opened.wait_for(|is_open| *is_open).await.is_ok() {
        let at_work = match listener.take() {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address).await,
        };
        let Ok(at_work) = at_work else {
            sleep(TAKEN_PAUSE).await;
            continue;
        };
        let mut connections = JoinSet::new();
        let letting_in = async {
            while let Ok((stream, _)) = at_work.accept().await {
                connections.spawn(lead(stream, target));
            }
        };
        tokio::select! {
            () = letting_in => {}
            _ = opened.wait_for(|is_open| !is_open) => {}
        }
    }
}

async fn lead(mut from: TcpStream, target: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(target).await {
        // An error is an end that went away.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}

#[cfg(test)]
mod tests {
    use carillon_local::{Receiver, send};

    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn leads_only_while_it_is_open() {
        let receiver = Receiver::start().await.unwrap();
        let door = Door::to(&receiver.url("")).await.unwrap();
        let ask = || async { send(http::Request::get(door.url("/x")).body(Vec::new()).unwrap()).await.ok() };
        assert_eq!(ask().await.unwrap().status, 204);
        door.shut();
        eventually("it to be shut", || async { Ok(ask().await.is_none().then_some(())) }).await.unwrap();
        let count = receiver.received("/x").len();
        door.open();
        eventually("it to be open", || async { Ok(ask().await.map(drop)) }).await.unwrap();
        assert_eq!(receiver.received("/x").len(), count + 1);
    }
}
