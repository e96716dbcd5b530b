//! Posts with the one sender to every URL that standard input names, many at once, and last those that want to be alone, and
//! tells how each post ended: a process of its own, so that its memory is the sender's alone and its trust store a test's.
//!
//! Input: `{"rounds": 2, "targets": [{"name", "url", "timeout", "posts", "alone"}]}`. Output: one JSON object, with the results of
//! the last round, and the peak of resident memory (KiB) before, after each, and after those.

#![allow(clippy::print_stdout, reason = "the results are what it is for")]
#![allow(
    clippy::disallowed_methods,
    reason = "nothing that deploys: it measures time, and all at once means that"
)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Outcome, Reply};
use carillon_core::time::UnixMillis;
use carillon_local::MOMENT;
use carillon_sender::{ClientIdentity, Post, Sender};
use futures::stream::{self, StreamExt as _};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

/// What each post has for a body. Long enough that part of it is unread when a receiver closes early.
const BODY: &[u8] = &[b' '; 4096];

/// How many are visited at once: twice as many as a function has tasks, since most do nothing but wait.
const AT_ONCE: usize = 20;

/// A client certificate that the hostile receiver takes.
const CERTIFICATE: &str = include_str!("../../../../crates/sender/tests/tls/client_certificate.pem");
const KEY: &str = include_str!("../../../../crates/sender/tests/tls/client_key.pem");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let input: Value = serde_json::from_reader(std::io::stdin())?;
    let targets = input["targets"].as_array().context("targets")?;
    let rules = EndpointRules { reach: "127.0.0.0/8".parse()?, allow_insecure: true };
    let sender = Sender::new(&rules);
    let identity = ClientIdentity::from_pem(CERTIFICATE, KEY)?;
    let mut results = Vec::new();
    let mut peaks = vec![peak()?];
    let (alone, together): (Vec<_>, Vec<_>) = targets.iter().partition(|target| target["alone"] == true);
    for _ in 0..input["rounds"].as_u64().context("rounds")? {
        results.clear();
        let visits = stream::iter(&together).map(|target| visit(&sender, &identity, target));
        results.extend(visits.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        peaks.push(peak()?);
    }
    for target in alone {
        results.push(visit(&sender, &identity, target).await);
    }
    peaks.push(peak()?);
    let results = results.into_iter().collect::<Result<Vec<_>>>()?;
    println!("{}", json!({ "results": results, "peaks": peaks }));
    Ok(())
}

/// All posts to one target, one after the other.
async fn visit(sender: &Sender, identity: &ClientIdentity, target: &Value) -> Result<Value> {
    let name = target["name"].as_str().context("name")?;
    let endpoint = Endpoint::stored(target["url"].as_str().context("url")?)?;
    let timeout = Duration::try_from_secs_f64(target["timeout"].as_f64().context("timeout")?)?;
    let mut ends = Vec::new();
    for _ in 0..target["posts"].as_u64().context("posts")? {
        let mut headers = HeaderMap::new();
        if name == "refused-token" {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/secevent+jwt"));
        }
        let identity = (name == "tls-mutual").then_some(identity);
        let (endpoint, body) = (&endpoint, Bytes::from_static(BODY));
        let post = Post { endpoint, headers, body, timeout, check_certificates: true, identity };
        let began = Instant::now();
        let Reply { outcome, response } = sender.post(post, UnixMillis(MOMENT)).await;
        let retry_after = match outcome {
            Outcome::Answered { retry_after, .. } => retry_after.map(|wait| wait.as_secs()),
            _ => None,
        };
        ends.push(json!({
            "outcome": outcome.class(),
            "status": outcome.status(),
            "retryAfter": retry_after,
            "response": response,
            "seconds": began.elapsed().as_secs_f64(),
        }));
    }
    Ok(json!({ "name": name, "ends": ends }))
}

/// The most memory that this process had resident, in KiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
