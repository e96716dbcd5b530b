//! `carillon listen`

use std::time::{Duration, Instant};

use clap::Args;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use url::Url;

use crate::api::{Call, parsed};
use crate::clock::now;
use crate::commands::inboxes::{Inbox, POLL_PERIOD, Request, page_behind};
use crate::context::Place;
use crate::failure::{Failure, usage};
use crate::moment::time_of_day;
use crate::network;
use crate::table::{Cell, Tone};

/// What concerns one connection alone, and is said anew on the next (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const HELP: &str = "\
Makes an inbox and, with --types, a subscription to it; posts what comes there to this machine, with its method, headers and
body; and deletes both at the end (Ctrl-C). Carillon has had its answer from the inbox by then: what the server here answers
is shown, and changes nothing.

Examples:
  carillon listen --forward-to http://localhost:3000/hook --types 'consent:*' --subscriber tpp-1
  carillon listen --forward-to http://localhost:3000     # shows the inbox's URL, for a subscription of your own";

/// What `listen` takes.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Listen {
    /// Where to
    #[arg(long, value_name = "URL")]
    forward_to: Url,
    /// Subscribe the inbox to these event types or patterns (`consent:*`), between commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,
    /// Whose subscription it is
    #[arg(long, value_name = "ID", requires = "types")]
    subscriber: Option<String>,
    /// In what form events are delivered: cloudEvents, cloudEventsBinary, standardWebhooks, ...
    #[arg(long, requires = "types")]
    format: Option<String>,
}

/// Forwards what comes to an inbox until it is told to end.
pub(crate) async fn listen(place: &Place, said: Listen) -> Result<(), Failure> {
    if !matches!(said.forward_to.scheme(), "http" | "https") {
        return Err(usage(format!("`{}` is no http or https URL", said.forward_to)));
    }
    // From here on a signal ends nothing by itself: what was made is deleted first.
    let mut end = End::new()?;
    let stand = Stand::set(place, &said).await?;
    let ended = tokio::select! {
        failed = stand.forward() => failed,
        () = end.asked() => Ok(()),
    };
    place.output.note("Cleaning up ...");
    let cleared = tokio::select! {
        cleared = stand.clear() => cleared,
        () = end.asked() => Err(Failure::EndedBadly(stand.left())),
    };
    ended.and(cleared)
}

/// The signals that ask for the end.
struct End([Signal; 3]);

impl End {
    fn new() -> Result<Self, Failure> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What was made to listen with.
struct Stand<'a> {
    place: &'a Place,
    inbox: String,
    subscription: Option<String>,
    forwarder: Forwarder,
}

/// A subscription that was just made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    id: String,
    status: String,
    signing_secret: Option<String>,
}

impl<'a> Stand<'a> {
    async fn set(place: &'a Place, said: &Listen) -> Result<Self, Failure> {
        let http = network::client()?;
        let answer = place.api.call(&Call::post(&place.at(&["inboxes"]), &json!({}))).await?;
        let inbox = parsed::<Inbox>(&answer)?;
        let forwarder = Forwarder { http, to: said.forward_to.clone(), inbox: inbox.url.clone() };
        let mut stand = Self { place, inbox: inbox.id, subscription: None, forwarder };
        let output = place.output;
        output.note(&format!("{} receives at {}", stand.inbox, inbox.url));
        if !said.types.is_empty() {
            let made = match stand.subscribe(said, &inbox.url).await {
                Ok(made) => made,
                Err(failure) => {
                    // The first failure is the one to tell of.
                    let _ = stand.clear().await;
                    return Err(failure);
                }
            };
            output.note(&format!("{} is subscribed to {} ({})", made.id, said.types.join(", "), made.status));
            if let Some(secret) = &made.signing_secret {
                output.note(&format!("Signing secret: {secret}"));
            }
            stand.subscription = Some(made.id);
        }
        output.note(&format!("Forwarding to {}. Ctrl-C ends it.", said.forward_to));
        Ok(stand)
    }

    async fn subscribe(&self, said: &Listen, url: &str) -> Result<Made, Failure> {
        let mut body = json!({ "endpoint": url, "types": said.types });
        for (member, value) in [("subscriber", &said.subscriber), ("format", &said.format)] {
            if let Some(value) = value {
                body[member] = Value::from(value.as_str());
            }
        }
        let call = Call::create(&self.place.at(&["subscriptions"]), &body)?;
        self.place.api.parsed(&call).await
    }

    /// Does not end by itself, but for a failure that waiting does not mend.
    async fn forward(&self) -> Result<(), Failure> {
        let Place { api, output, .. } = self.place;
        let path = self.place.at(&["inboxes", &self.inbox, "requests"]);
        let mut after = None;
        let mut troubled = false;
        loop {
            match page_behind(api, &path, after.as_deref()).await {
                Ok(page) if page.items.is_empty() => {
                    troubled = false;
                    sleep(POLL_PERIOD).await;
                }
                Ok(page) => {
                    for item in &page.items {
                        let forwarded = self.forwarder.forward(&parsed(item.get().as_bytes())?).await?;
                        forwarded.show(self.place, item)?;
                    }
                    after = page.next;
                }
                Err(failure) if failure.may_pass() => {
                    if !troubled {
                        output.note(&format!("{failure}: going on trying ..."));
                    }
                    troubled = true;
                    sleep(POLL_PERIOD).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn clear(&self) -> Result<(), Failure> {
        let Self { place, inbox, subscription, .. } = self;
        let subscription = match subscription {
            Some(id) => deleted(place, &place.at(&["subscriptions", id])).await,
            None => Ok(()),
        };
        subscription.and(deleted(place, &place.at(&["inboxes", inbox])).await)
    }

    fn left(&self) -> String {
        let inbox = format!("left behind: `carillon inboxes delete {}`", self.inbox);
        match &self.subscription {
            Some(id) => format!("{inbox}, `carillon subscriptions delete {id}`"),
            None => inbox,
        }
    }
}

async fn deleted(place: &Place, path: &[&str]) -> Result<(), Failure> {
    match place.api.call(&Call::delete(path).repeatable()).await {
        // Somebody else did it, or our own call whose answer got lost.
        Err(Failure::Refused(refusal)) if refusal.status == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Posts requests to the developer's server.
struct Forwarder {
    http: Client,
    to: Url,
    /// The inbox's URL.
    inbox: String,
}

/// How the forwarding of a request ended.
struct Forwarded {
    event_type: String,
    webhook_id: String,
    method: String,
    status: Result<u16, String>,
    took: Duration,
}

impl Forwarder {
    async fn forward(&self, request: &Request) -> Result<Forwarded, Failure> {
        let body = request.body()?;
        let event_type = event_type(request, &body);
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| usage(format!("`{}` is no HTTP method", request.method)))?;
        let url = target(&self.to, behind(&self.inbox, request.path.as_deref().unwrap_or_default()));
        let sent = self.http.request(method, url).headers(headers(request)).body(body);
        let began = Instant::now();
        let status = match network::exchange(sent, self.to.as_str()).await {
            Ok(answer) => Ok(answer.status),
            Err(Failure::Unreachable { why, .. }) => Err(why),
            Err(other) => return Err(other),
        };
        Ok(Forwarded {
            event_type,
            webhook_id: request.header("webhook-id").unwrap_or_default().to_owned(),
            method: request.method.clone(),
            status,
            took: began.elapsed(),
        })
    }
}

/// For scripts: the request as the API has it, and what the server here made of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    request: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    duration_ms: u64,
}

impl Forwarded {
    fn show(&self, place: &Place, item: &RawValue) -> Result<(), Failure> {
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        if place.output.is_json() {
            let error = self.status.as_ref().err().map(String::as_str);
            let line =
                Line { request: item, status: self.status.as_ref().ok().copied(), error, duration_ms: took };
            let line = serde_json::to_string(&line).map_err(|error| usage(error.to_string()))?;
            return place.output.json(&line);
        }
        let answer = match &self.status {
            Ok(status) => Cell::toned(status.to_string(), Tone::of_status((*status).into())),
            Err(why) => Cell::toned(why, Tone::Bad),
        };
        place.output.toned_line(&[
            Cell::toned(time_of_day(now()), Tone::Quiet),
            self.method.as_str().into(),
            self.event_type.as_str().into(),
            Cell::toned(self.webhook_id.as_str(), Tone::Quiet),
            answer,
            Cell::toned(format!("{took} ms"), Tone::Quiet),
        ])
    }
}

/// What of a request's path and query stood behind the inbox's URL. That ends in a token, which stands nowhere else.
fn behind<'a>(inbox: &str, path: &'a str) -> &'a str {
    let token = inbox.rsplit('/').next().filter(|token| !token.is_empty());
    token.and_then(|token| path.split_once(token)).map_or("", |(_, behind)| behind)
}

/// What stood behind the inbox's URL stands behind the one that is forwarded to.
fn target(to: &Url, behind: &str) -> Url {
    let mut url = to.clone();
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "." | ".."));
    let segments = segments.collect::<Vec<_>>();
    if !segments.is_empty()
        && let Ok(mut all) = url.path_segments_mut()
    {
        all.pop_if_empty().extend(segments);
    }
    if !query.is_empty() {
        let all = url.query().map_or_else(|| query.to_owned(), |said| format!("{said}&{query}"));
        url.set_query(Some(&all));
    }
    url
}

fn headers(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes()))
            && !HOP_BY_HOP.contains(&name.as_str())
        {
            headers.append(name, value);
        }
    }
    headers
}

/// The type of the event in it, wherever its format has it.
fn event_type(request: &Request, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        event_type: String,
    }
    let said = request.header("ce-type").map(str::to_owned);
    said.or_else(|| serde_json::from_slice::<Typed>(body).ok().map(|event| event.event_type))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &Value, body: &str) -> Request {
        let said = json!({ "receivedAt": "", "method": "POST", "headers": headers, "body": body });
        serde_json::from_value(said).unwrap()
    }

    #[test]
    fn headers_go_on_but_for_those_of_the_connection() {
        let said = json!([
            ["Webhook-Id", "dlv_1"],
            ["Host", "a.example"],
            ["content-length", "2"],
            ["x-a", "1"],
            ["x-a", "2"],
            ["bad name", "x"]
        ]);
        let headers = headers(&request(&said, "{}"));
        let kept = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect::<Vec<_>>();
        assert_eq!(kept, [("webhook-id", &b"dlv_1"[..]), ("x-a", b"1"), ("x-a", b"2")]);
    }

    #[test]
    fn targets() {
        for (to, path, meant) in [
            ("http://localhost:3000", "", "http://localhost:3000/"),
            ("http://localhost:3000/hook", "/in/t0k3n", "http://localhost:3000/hook"),
            ("http://localhost:3000/hook", "/in/t0k3n?c=d", "http://localhost:3000/hook?c=d"),
            ("http://localhost:3000/hook?a=b", "/in/t0k3n/x/y?c=d", "http://localhost:3000/hook/x/y?a=b&c=d"),
            ("http://localhost:3000/hook/", "/in/t0k3n/../../x", "http://localhost:3000/hook/x"),
            ("http://localhost:3000/hook", "/elsewhere", "http://localhost:3000/hook"),
        ] {
            let behind = behind("https://a.example/stage/in/t0k3n", path);
            assert_eq!(target(&Url::parse(to).unwrap(), behind).as_str(), meant);
        }
    }

    #[test]
    fn types_of_events() {
        let of = |headers: &Value, body: &str| event_type(&request(headers, body), body.as_bytes());
        assert_eq!(of(&json!([["ce-type", "a"]]), "\u{0}"), "a");
        assert_eq!(of(&json!([]), r#"{"type": "b", "data": {}}"#), "b");
        assert_eq!(of(&json!([]), "eyJ"), "");
    }
}
