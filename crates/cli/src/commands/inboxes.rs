//! `carillon inboxes`

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, Call};
use crate::context::{Place, View, done};
use crate::failure::{Failure, usage};
use crate::listing::{Page, Row, list_all, print};
use crate::moment::{Span, ago, full};
use crate::table::{Cell, Members, Table, Tone};

/// How often an inbox is asked for what has come.
pub(crate) const POLL_PERIOD: Duration = Duration::from_secs(1);

/// How much of a body stands in a table, in characters.
const BODY_CHARS_SHOWN: usize = 60;

/// What there is to do with inboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum InboxesCommand {
    /// Make one: a URL that keeps what comes to it for a day
    #[command(after_help = "Example:\n  carillon inboxes create --status 503 --delay 2s")]
    Create(Answering),
    /// List them
    List,
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Change what one answers
    Answer {
        /// Its id
        id: String,
        #[command(flatten)]
        answer: Answering,
    },
    /// Show what came, the oldest first
    #[command(after_help = "Example:\n  carillon inboxes requests inbox_... --follow --json | jq .headers")]
    Requests {
        /// The inbox
        id: String,
        /// Begin behind this one: what `next` said
        #[arg(long)]
        cursor: Option<String>,
        /// Go on with what comes, until Ctrl-C
        #[arg(long)]
        follow: bool,
    },
    /// Delete one, with what came
    Delete {
        /// Its id
        id: String,
    },
}

/// What an inbox answers.
#[derive(Args, Debug)]
pub(crate) struct Answering {
    /// With which HTTP status
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// After how long
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    delay: Span,
}

impl Answering {
    fn body(&self) -> Value {
        let Self { status, delay: Span(delay) } = self;
        json!({ "answer": { "status": status, "delayMs": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) } })
    }
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: InboxesCommand) -> Result<(), Failure> {
    let Place { api, output, .. } = place;
    match command {
        InboxesCommand::Create(answer) => {
            place.show::<Inbox>(&Call::post(&place.at(&["inboxes"]), &answer.body())).await
        }
        InboxesCommand::List => {
            list_all::<Inbox>(api, *output, &Call::get(&place.at(&["inboxes"])), "inboxes").await
        }
        InboxesCommand::Show { id } => place.show::<Inbox>(&Call::get(&place.at(&["inboxes", &id]))).await,
        InboxesCommand::Answer { id, answer } => {
            place.show::<Inbox>(&Call::patch(&place.at(&["inboxes", &id]), &answer.body())).await
        }
        InboxesCommand::Requests { id, cursor, follow } => requests(place, &id, cursor, follow).await,
        InboxesCommand::Delete { id } => {
            let answer = api.call(&Call::delete(&place.at(&["inboxes", &id]))).await?;
            done(*output, &answer, &format!("Deleted {id}."))
        }
    }
}

async fn requests(place: &Place, id: &str, mut after: Option<String>, follow: bool) -> Result<(), Failure> {
    let mut table = Table::new(Request::HEADINGS);
    loop {
        let page = page_behind(&place.api, &place.at(&["inboxes", id, "requests"]), after.as_deref()).await?;
        print::<Request>(place.output, &mut table, &page.items)?;
        if !page.items.is_empty() {
            after = page.next;
        } else if follow {
            sleep(POLL_PERIOD).await;
        } else {
            return Ok(());
        }
    }
}

/// What came to an inbox behind a request, the oldest first: a page, empty if there is nothing yet.
pub(crate) async fn page_behind(api: &Api, path: &[&str], after: Option<&str>) -> Result<Page, Failure> {
    api.parsed(&Call::get(path).with_some("after", after)).await
}

/// What is shown of an inbox.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inbox {
    /// Its id.
    pub(crate) id: String,
    /// Where it receives.
    pub(crate) url: String,
    #[serde(default)]
    answer: Answers,
    created_at: String,
    expires_at: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answers {
    status: u16,
    delay_ms: u64,
}

impl Answers {
    fn told(&self) -> String {
        match self.delay_ms {
            0 => self.status.to_string(),
            delay => format!("{} after {delay} ms", self.status),
        }
    }
}

impl View for Inbox {
    fn members(&self, now: Timestamp) -> Members {
        Members::default()
            .with("id", self.id.as_str())
            .with("url", self.url.as_str())
            .with("answers", self.answer.told())
            .with("created", full(&self.created_at, now))
            .with("expires", full(&self.expires_at, now))
    }
}

impl Row for Inbox {
    const HEADINGS: &'static [&'static str] = &["INBOX", "ANSWERS", "EXPIRES", "URL"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.answer.told().into(),
            Cell::toned(ago(&self.expires_at, now), Tone::Quiet),
            self.url.as_str().into(),
        ]
    }
}

/// A request that came to an inbox.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// When it came.
    pub(crate) received_at: String,
    /// Its method.
    pub(crate) method: String,
    /// Its path and query: those of the inbox's URL, and what stood behind them.
    pub(crate) path: Option<String>,
    /// Its headers, in their order.
    pub(crate) headers: Vec<(String, String)>,
    body: Option<String>,
    encoding: Option<String>,
    signature: Option<String>,
}

impl Request {
    /// The body, byte for byte.
    pub(crate) fn body(&self) -> Result<Vec<u8>, Failure> {
        let text = self.body.as_deref().unwrap_or_default();
        match self.encoding.as_deref() {
            Some("base64") => BASE64_STANDARD
                .decode(text)
                .map_err(|_| usage("a request's body is not what it is said to be")),
            _ => Ok(text.as_bytes().to_vec()),
        }
    }

    /// A header's first value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Row for Request {
    const HEADINGS: &'static [&'static str] = &["RECEIVED", "METHOD", "SIGNATURE", "WEBHOOK-ID", "BODY"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let body = self.body().unwrap_or_default();
        let body = String::from_utf8_lossy(&body).chars().take(BODY_CHARS_SHOWN).collect::<String>();
        vec![
            ago(&self.received_at, now).into(),
            self.method.as_str().into(),
            Cell::word(self.signature.clone().unwrap_or_default()),
            self.header("webhook-id").unwrap_or_default().into(),
            Cell::toned(body, Tone::Quiet),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_bytes() {
        let request = |body: &str, encoding: Option<&str>| {
            let said = json!({ "receivedAt": "", "method": "POST", "headers": [["Webhook-Id", "dlv_1"]],
                "body": body, "encoding": encoding });
            serde_json::from_value::<Request>(said).unwrap()
        };
        assert_eq!(request("{\"é\": 1}", None).body().unwrap(), "{\"é\": 1}".as_bytes());
        assert_eq!(request("/wA=", Some("base64")).body().unwrap(), [0xff, 0]);
        assert!(request("!", Some("base64")).body().is_err());
        assert_eq!(request("", None).header("webhook-id"), Some("dlv_1"));
    }

    #[test]
    fn answers() {
        let answer = Answering { status: 503, delay: "2s".parse().unwrap() };
        assert_eq!(answer.body(), json!({ "answer": { "status": 503, "delayMs": 2_000 } }));
    }
}
