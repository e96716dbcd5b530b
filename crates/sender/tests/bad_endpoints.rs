//! Endpoints that must neither be accepted nor reached: the table in `bad_endpoints.json`, and names that stand for
//! other addresses from one look-up to the next.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_core::endpoint::{Endpoint, EndpointRules};
use carillon_core::outcome::{Failure, Outcome};
use carillon_core::time::UnixMillis;
use carillon_sender::{Looking, Lookup, Post, Request, Sender, Unresolved};
use http::{HeaderMap, Method};
use tokio::net::TcpListener;

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// What a local stack opens for its own receivers; the table's rows whose reason does not begin with one of the words
/// are bad there too.
const OPENED_LOCALLY: &str = "127.0.0.0/8";
const GOOD_LOCALLY: [&str; 2] = ["loopback", "plain HTTP"];

#[derive(Debug, serde::Deserialize)]
struct Bad {
    url: String,
    why: String,
}

fn table() -> Vec<Bad> {
    serde_json::from_str(include_str!("bad_endpoints.json")).unwrap()
}

/// The DNS as the table needs it: some names lead inside as they do in the world, most nowhere.
#[derive(Debug)]
struct Dns;

impl Lookup for Dns {
    fn addresses<'a>(&'a self, name: &'a str) -> Looking<'a> {
        let labels: Vec<_> = name.trim_end_matches('.').split('.').collect();
        let found = match labels[..] {
            [ref stating @ .., "nip", "io"] => stated(stating),
            [.., "localhost"] | ["localtest", "me"] => vec![LOOPBACK],
            [.., "internal"] | ["metadata" | "instance-data"] => vec![METADATA],
            [_] | [.., "local"] | [.., "home", "arpa"] => vec![PRIVATE],
            // That these are no endpoints must be seen without the DNS.
            [.., "example", "com"] => vec![PUBLIC],
            _ => vec![],
        };
        Box::pin(async { Ok(found) })
    }
}

/// The address that the last labels of a name state, in hexadecimal or dotted form.
fn stated(labels: &[&str]) -> Vec<IpAddr> {
    if let [number] = labels {
        return vec![Ipv4Addr::from(u32::from_str_radix(number, 16).unwrap()).into()];
    }
    let dotted = labels[labels.len() - 4..].join(".");
    vec![dotted.parse().unwrap()]
}

/// A name whose answer differs from one look-up to the next; the last one stays.
#[derive(Debug)]
struct Changing {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Changing {
    fn new(answers: &[&[IpAddr]]) -> Self {
        Self { answers: answers.iter().map(|answer| answer.to_vec()).collect(), asked: AtomicUsize::new(0) }
    }
}

impl Lookup for Changing {
    fn addresses<'a>(&'a self, _: &'a str) -> Looking<'a> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        Box::pin(async move { Ok(self.answers[turn].clone()) })
    }
}

/// Counts who connects to 127.0.0.1.
struct Inside {
    port: u16,
    reached: Arc<AtomicUsize>,
}

impl Inside {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let reached = Arc::new(AtomicUsize::new(0));
        let counted = reached.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { port, reached }
    }

    /// Whether nobody has connected. Connects itself, since the listener takes connections in their order.
    async fn untouched(&self) -> bool {
        let before = self.reached.load(Ordering::SeqCst);
        drop(tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap());
        while self.reached.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
        let reached = self.reached.swap(0, Ordering::SeqCst);
        reached == 1
    }
}

fn local() -> EndpointRules {
    EndpointRules { reach: OPENED_LOCALLY.parse().unwrap(), allow_insecure: true }
}

/// Inside is closed, but plain HTTP open, so that nothing but the addresses can stop a request.
fn insecure() -> EndpointRules {
    EndpointRules { allow_insecure: true, ..EndpointRules::default() }
}

async fn accepted(rules: &EndpointRules, sender: &Sender, url: &str) -> bool {
    match rules.check(url) {
        Ok(endpoint) => sender.resolves(&endpoint).await.is_ok(),
        Err(_) => false,
    }
}

/// How a request and a post to this endpoint end, the one with the certificate checked, the other without.
async fn tried(sender: &Sender, endpoint: &Endpoint) -> (Option<Failure>, Outcome) {
    let headers = HeaderMap::new();
    let body = Bytes::from_static(b"{}");
    let timeout = Duration::from_secs(5);
    let request = Request {
        method: Method::OPTIONS,
        endpoint,
        headers: headers.clone(),
        body: Bytes::new(),
        timeout,
        check_certificates: true,
        identity: None,
    };
    let requested = sender.request(request).await.err();
    let post = Post { endpoint, headers, body, timeout, check_certificates: false, identity: None };
    (requested, sender.post(post, UnixMillis(0)).await.outcome)
}

#[tokio::test]
async fn none_of_the_table_is_accepted() {
    let rules = EndpointRules::default();
    let sender = Sender::with_lookup(&rules, Dns);
    let table = table();
    assert!(table.len() >= 60);
    let mut wrongly_accepted = Vec::new();
    for bad in table {
        if accepted(&rules, &sender, &bad.url).await {
            wrongly_accepted.push(bad);
        }
    }
    assert!(wrongly_accepted.is_empty(), "{wrongly_accepted:#?}");
    assert!(
        accepted(&rules, &sender, "https://hooks.example.com/hook").await,
        "the table is not bad by accident"
    );
}

#[tokio::test]
async fn opening_loopback_opens_nothing_else() {
    let rules = local();
    let sender = Sender::with_lookup(&rules, Dns);
    let mut wrongly_accepted = Vec::new();
    for bad in table() {
        let may_be_good = GOOD_LOCALLY.iter().any(|good| bad.why.starts_with(good));
        if !may_be_good && accepted(&rules, &sender, &bad.url).await {
            wrongly_accepted.push(bad);
        }
    }
    assert!(wrongly_accepted.is_empty(), "{wrongly_accepted:#?}");
}

#[tokio::test]
async fn none_of_the_table_is_reached() {
    let inside = Inside::listen().await;
    let sender = Sender::with_lookup(&insecure(), Dns);
    for Bad { url, why } in table() {
        // Those that lead to a public name are bad for what else they say.
        let Ok(endpoint) = Endpoint::stored(&url) else { continue };
        let mut here = endpoint.url().clone();
        let leads_outside = here.host_str().is_some_and(|host| host.ends_with("example.com"));
        if leads_outside || here.set_port(Some(inside.port)).is_err() {
            continue;
        }
        let (requested, posted) = tried(&sender, &Endpoint::stored(here.as_str()).unwrap()).await;
        assert!(requested.is_some(), "{why}: {url}");
        assert!(matches!(posted, Outcome::Unanswered(_)), "{why}: {url}");
        assert!(inside.untouched().await, "{why}: {url}");
    }
}

#[tokio::test]
async fn a_name_is_judged_by_all_its_addresses() {
    let rules = EndpointRules::default();
    let endpoint = rules.check("https://hooks.example.com/").unwrap();
    let v6: IpAddr = "2606:4700::1111".parse().unwrap();
    for inside in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
        let inside: IpAddr = inside.parse().unwrap();
        for answer in [&[inside][..], &[PUBLIC, inside], &[inside, PUBLIC], &[v6, PUBLIC, inside]] {
            let sender = Sender::with_lookup(&rules, Changing::new(&[answer]));
            let refused = sender.resolves(&endpoint).await;
            assert!(matches!(refused, Err(Unresolved::Inside(found)) if found == inside), "{answer:?}");
            let (requested, posted) = tried(&sender, &endpoint).await;
            assert_eq!(requested, Some(Failure::Blocked), "{answer:?}");
            assert_eq!(posted, Outcome::Unanswered(Failure::Blocked), "{answer:?}");
        }
    }
    let public = Sender::with_lookup(&rules, Changing::new(&[&[PUBLIC, v6]]));
    assert!(public.resolves(&endpoint).await.is_ok());
    let nowhere = Sender::with_lookup(&rules, Changing::new(&[&[]]));
    assert!(matches!(nowhere.resolves(&endpoint).await, Err(Unresolved::NoAddress(_))));
    assert_eq!(tried(&nowhere, &endpoint).await.0, Some(Failure::Dns));
}

#[tokio::test]
async fn a_name_that_changes_between_two_look_ups_reaches_nothing() {
    let inside = Inside::listen().await;
    let rules = insecure();
    let endpoint = rules.check(&format!("http://hooks.example.com:{}/hook", inside.port)).unwrap();
    for then in [&[LOOPBACK][..], &[PUBLIC, LOOPBACK]] {
        let sender = Sender::with_lookup(&rules, Changing::new(&[&[PUBLIC], then]));
        assert!(sender.resolves(&endpoint).await.is_ok(), "when it is written, it is public");
        let (requested, posted) = tried(&sender, &endpoint).await;
        assert_eq!(requested, Some(Failure::Blocked));
        assert_eq!(posted, Outcome::Unanswered(Failure::Blocked));
        assert!(inside.untouched().await);
    }
}

/// The connection goes to the very addresses that were checked: were there a second look-up, it would find another.
#[tokio::test]
async fn what_was_checked_is_what_is_connected_to() {
    let inside = Inside::listen().await;
    let rules = local();
    let endpoint = rules.check(&format!("http://hooks.example.com:{}/", inside.port)).unwrap();
    let elsewhere: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let sender = Sender::with_lookup(&rules, Changing::new(&[&[elsewhere], &[LOOPBACK]]));
    let (requested, _) = tried(&sender, &endpoint).await;
    assert_eq!(requested, Some(Failure::Unreachable), "nobody listens at the address that was found first");
}
