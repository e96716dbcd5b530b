//! `carillon subscriptions`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Call, parsed};
use crate::context::{Place, View, done, show};
use crate::failure::{Failure, usage};
use crate::input;
use crate::listing::{Paging, Row, list};
use crate::moment::{Span, ago, full};
use crate::table::{Cell, Members, Tone};

/// What there is to do with subscriptions.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionsCommand {
    /// List them
    #[command(
        after_help = "Example:\n  carillon subscriptions list --status disabled --follow --json | jq -r .id"
    )]
    List(List),
    /// Show one
    Show(One),
    /// Make one; its secret is shown this once
    Create(Create),
    /// Change one
    Update(Update),
    /// Hold its deliveries, without loss and without attempts
    Pause(One),
    /// Let its deliveries go on, the oldest first
    Resume(One),
    /// Make deliveries again
    Enable(One),
    /// Make no deliveries; they are kept as failed
    Disable(One),
    /// Delete one
    Delete {
        /// Its id
        id: String,
        /// Without being asked
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a new signing secret, which is shown this once
    RotateSecret {
        /// The subscription
        id: String,
        /// How long those of before still sign beside it
        #[arg(long, value_name = "SPAN", default_value = "1d")]
        overlap: Span,
    },
    /// Send a signed sample event now, and show how the attempt ended
    Test {
        /// The subscription
        id: String,
        /// Which event type's sample; the first that it subscribes to, if none is named
        #[arg(long, value_name = "TYPE")]
        event_type: Option<String>,
    },
    /// Ask the endpoint's owner again whether it wants to be called
    Verify(One),
}

/// Which subscription.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// Its id
    id: String,
}

/// What `list` takes.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only those of this subscriber
    #[arg(long, value_name = "ID")]
    subscriber: Option<String>,
    /// Only those that are so: pending, active, paused or disabled
    #[arg(long)]
    status: Option<String>,
    /// Only those that get events of this type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

const CREATE_HELP: &str = "\
Examples:
  carillon subscriptions create --endpoint https://tpp.example.com/hook --type 'consent:*' --subscriber tpp-1
  carillon subscriptions create --endpoint https://tpp.example.com/hook --type consent:created,consent:revoked \\
    --filter '{\"pattern\": {\"data\": {\"amount\": [{\"numeric\": [\">\", 100]}]}}}' --rate 600 --retry 5s,5m,30m
  carillon subscriptions create --file subscription.json    # all members, for example an `authorization`";

/// What `create` takes.
#[derive(Args, Debug)]
#[command(after_help = CREATE_HELP)]
pub(crate) struct Create {
    /// Whose it is
    #[arg(long, value_name = "ID")]
    subscriber: Option<String>,
    #[command(flatten)]
    members: Said,
    /// Hold its deliveries from the beginning
    #[arg(long)]
    paused: bool,
    /// Make no deliveries yet
    #[arg(long)]
    disabled: bool,
}

const UPDATE_HELP: &str = "\
Examples:
  carillon subscriptions update sub_... --endpoint https://tpp.example.com/v2/hook
  echo '{\"filter\": null}' | carillon subscriptions update sub_... --file -";

/// What `update` takes.
#[derive(Args, Debug)]
#[command(after_help = UPDATE_HELP)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(MEMBERS))]
pub(crate) struct Update {
    /// Which one
    id: String,
    #[command(flatten)]
    members: Said,
}

/// By their names as arguments.
const MEMBERS: [&str; 11] = [
    "file",
    "endpoint",
    "types",
    "title",
    "format",
    "signatures",
    "rate",
    "timeout",
    "retry",
    "filter",
    "headers",
];

/// The essential members of a subscription; a file has them all.
#[derive(Args, Debug, Default)]
struct Said {
    /// A file with members in JSON, `-` for the standard input; options go before it
    #[arg(long)]
    file: Option<String>,
    /// Where deliveries are posted
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// An event type or pattern (`consent:*`); may be repeated, or several between commas
    #[arg(long = "type", id = "types", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Its name for people
    #[arg(long)]
    title: Option<String>,
    /// cloudEvents, cloudEventsBinary, standardWebhooks, resource or securityEventToken
    #[arg(long)]
    format: Option<String>,
    /// v1, v1a or both between a comma
    #[arg(long = "signature", id = "signatures", value_name = "SCHEME", value_delimiter = ',')]
    signatures: Vec<String>,
    /// How many attempts are made in a minute
    #[arg(long, value_name = "PER_MINUTE")]
    rate: Option<u32>,
    /// How long an attempt may take
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// The waits between attempts, as in `5s,5m,30m`
    #[arg(long, value_name = "SPANS", value_delimiter = ',')]
    retry: Vec<Span>,
    /// Which events of these types: JSON, or `@` and a file
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// A header that is sent with each delivery, `name: value`; may be repeated
    #[arg(long = "header", id = "headers", value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: SubscriptionsCommand) -> Result<(), Failure> {
    let one = |id: &str| Call::get(&place.at(&["subscriptions", id]));
    match command {
        SubscriptionsCommand::List(said) => listed(place, said).await,
        SubscriptionsCommand::Show(One { id }) => place.show::<Subscription>(&one(&id)).await,
        SubscriptionsCommand::Create(said) => {
            place.show::<Subscription>(&Call::create(&place.at(&["subscriptions"]), &said.body()?)?).await
        }
        SubscriptionsCommand::Update(Update { id, members }) => {
            change(place, &id, &Value::Object(members.body()?)).await
        }
        SubscriptionsCommand::Pause(One { id }) => change(place, &id, &json!({ "paused": true })).await,
        SubscriptionsCommand::Resume(One { id }) => change(place, &id, &json!({ "paused": false })).await,
        SubscriptionsCommand::Enable(One { id }) => change(place, &id, &json!({ "enabled": true })).await,
        SubscriptionsCommand::Disable(One { id }) => change(place, &id, &json!({ "enabled": false })).await,
        SubscriptionsCommand::Delete { id, yes } => {
            input::confirmed(&format!("Delete the subscription {id}?"), yes)?;
            let answer = place.api.call(&Call::delete(&place.at(&["subscriptions", &id]))).await?;
            done(place.output, &answer, &format!("Deleted {id}."))
        }
        SubscriptionsCommand::RotateSecret { id, overlap: Span(overlap) } => {
            let path = place.at(&["subscriptions", &id, "secrets", "rotate"]);
            let body = json!({ "overlapSeconds": overlap.as_secs() });
            place.show::<Subscription>(&Call::post(&path, &body)).await
        }
        SubscriptionsCommand::Test { id, event_type } => test(place, &id, event_type.as_deref()).await,
        SubscriptionsCommand::Verify(One { id }) => {
            let path = place.at(&["subscriptions", &id, "verify"]);
            place.show::<Subscription>(&Call::post_as(&path, "application/json", String::new())).await
        }
    }
}

async fn listed(place: &Place, said: List) -> Result<(), Failure> {
    let call = Call::get(&place.at(&["subscriptions"]))
        .with_some("subscriber", said.subscriber)
        .with_some("status", said.status)
        .with_some("eventType", said.event_type);
    list::<Subscription>(&place.api, place.output, &call, &said.paging, "such subscriptions").await
}

async fn change(place: &Place, id: &str, patch: &Value) -> Result<(), Failure> {
    place.show::<Subscription>(&Call::patch(&place.at(&["subscriptions", id]), patch)).await
}

async fn test(place: &Place, id: &str, event_type: Option<&str>) -> Result<(), Failure> {
    let body = event_type.map_or_else(|| json!({}), |event_type| json!({ "eventType": event_type }));
    let answer = place.api.call(&Call::post(&place.at(&["subscriptions", id, "test"]), &body)).await?;
    show::<Tested>(place.output, &answer)?;
    let Tested { outcome, .. } = parsed(&answer)?;
    if outcome == "delivered" {
        Ok(())
    } else {
        Err(Failure::EndedBadly(format!("the test ended as {outcome}")))
    }
}

impl Create {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = self.members.body()?;
        if let Some(subscriber) = &self.subscriber {
            body.insert("subscriber".to_owned(), json!(subscriber));
        }
        if self.paused {
            body.insert("paused".to_owned(), json!(true));
        }
        if self.disabled {
            body.insert("enabled".to_owned(), json!(false));
        }
        Ok(Value::Object(body))
    }
}

impl Said {
    fn body(&self) -> Result<Map<String, Value>, Failure> {
        let mut body = match self.file.as_deref().map(input::json_file).transpose()? {
            None => Map::new(),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(usage("the file must hold one JSON object")),
        };
        let mut say = |member: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(member.to_owned(), value);
            }
        };
        let some = |values: &[String]| (!values.is_empty()).then(|| json!(values));
        say("endpoint", self.endpoint.as_ref().map(|url| json!(url)));
        say("types", some(&self.types));
        say("title", self.title.as_ref().map(|title| json!(title)));
        say("format", self.format.as_ref().map(|format| json!(format)));
        say("signatures", some(&self.signatures));
        say("ratePerMinute", self.rate.map(|rate| json!(rate)));
        say("timeoutSeconds", self.timeout.map(|Span(timeout)| json!(timeout.as_secs())));
        let waits = self.retry.iter().map(|Span(wait)| wait.as_secs()).collect::<Vec<_>>();
        say("retryPolicy", (!waits.is_empty()).then(|| json!({ "waitsSeconds": waits })));
        say("filter", self.filter.as_deref().map(filter).transpose()?);
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
        say("headers", (!self.headers.is_empty()).then(|| Value::Object(headers.collect())));
        Ok(body)
    }
}

fn filter(text: &str) -> Result<Value, Failure> {
    let text = input::text_or_file(text)?;
    serde_json::from_str(&text).map_err(|error| usage(format!("the filter is no JSON: {error}")))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is no `name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// What is shown of a subscription.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    id: String,
    status: String,
    status_reason: Option<String>,
    title: Option<String>,
    subscriber: String,
    endpoint: String,
    types: Vec<String>,
    filter: Option<Value>,
    format: Option<String>,
    #[serde(default)]
    signatures: Vec<String>,
    rate_per_minute: Option<u32>,
    retry_policy: Option<RetryPolicy>,
    timeout_seconds: Option<u64>,
    authorization: Option<Authorization>,
    /// Shown by what makes them, and by nothing else.
    signing_secret: Option<String>,
    api_key: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryPolicy {
    waits_seconds: Vec<u64>,
}

#[derive(Deserialize)]
struct Authorization {
    #[serde(rename = "type")]
    kind: String,
}

impl View for Subscription {
    fn members(&self, now: Timestamp) -> Members {
        let waits = self.retry_policy.as_ref().map(|policy| {
            let waits = policy.waits_seconds.iter().map(|wait| format!("{wait}s")).collect::<Vec<_>>();
            if waits.is_empty() { "never".to_owned() } else { waits.join(", ") }
        });
        let once = |secret: &Option<String>| {
            secret.as_ref().map(|secret| Cell::toned(format!("{secret} (shown this once)"), Tone::Waiting))
        };
        Members::default()
            .with("id", self.id.as_str())
            .with_some("title", self.title.as_deref())
            .with("status", status(&self.status, self.status_reason.as_deref()))
            .with("subscriber", self.subscriber.as_str())
            .with("endpoint", self.endpoint.as_str())
            .with("types", self.types.join(", "))
            .with_some("filter", self.filter.as_ref().map(Value::to_string))
            .with_some("format", self.format.as_deref())
            .with("signatures", self.signatures.join(", "))
            .with_some("authorization", self.authorization.as_ref().map(|one| one.kind.as_str()))
            .with_some("rate", self.rate_per_minute.map(|rate| format!("{rate} a minute")))
            .with_some("timeout", self.timeout_seconds.map(|seconds| format!("{seconds}s")))
            .with_some("retries", waits)
            .with("created", full(&self.created_at, now))
            .with("updated", full(&self.updated_at, now))
            .with_some("signing secret", once(&self.signing_secret))
            .with_some("API key", once(&self.api_key))
    }
}

impl Row for Subscription {
    const HEADINGS: &'static [&'static str] =
        &["SUBSCRIPTION", "STATUS", "SUBSCRIBER", "TYPES", "ENDPOINT", "UPDATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            status(&self.status, self.status_reason.as_deref()),
            self.subscriber.as_str().into(),
            self.types.join(",").into(),
            self.endpoint.as_str().into(),
            Cell::toned(ago(&self.updated_at, now), Tone::Quiet),
        ]
    }
}

/// Where something stands, and why.
pub(crate) fn status(status: &str, reason: Option<&str>) -> Cell {
    let text = reason.map_or_else(|| status.to_owned(), |reason| format!("{status} ({reason})"));
    Cell::toned(text, Tone::of(status))
}

/// How a test ended.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    outcome: String,
    status: Option<u64>,
    duration_ms: u64,
    response: Option<String>,
}

impl View for Tested {
    fn members(&self, _: Timestamp) -> Members {
        let tone = if self.outcome == "delivered" { Tone::Good } else { Tone::Bad };
        Members::default()
            .with("outcome", Cell::toned(self.outcome.as_str(), tone))
            .with_some("status", self.status.map(|status| status.to_string()))
            .with("took", format!("{} ms", self.duration_ms))
            .with_some("response", self.response.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn body(words: &[&str]) -> Result<Value, Failure> {
        Line::try_parse_from([&["create"], words].concat()).unwrap().create.body()
    }

    #[test]
    fn members_of_a_new_subscription() {
        let words = [
            "--endpoint",
            "https://a.example",
            "--type",
            "a,b",
            "--type",
            "c:*",
            "--retry",
            "5s,5m",
            "--timeout",
            "10s",
            "--rate",
            "600",
            "--header",
            "X-Tenant: eu:1",
            "--filter",
            r#"{"pattern": {"data": {"a": [1]}}}"#,
            "--signature",
            "v1,v1a",
            "--paused",
            "--subscriber",
            "tpp-1",
        ];
        assert_eq!(
            body(&words).unwrap(),
            json!({
                "endpoint": "https://a.example", "types": ["a", "b", "c:*"], "subscriber": "tpp-1", "paused": true,
                "retryPolicy": { "waitsSeconds": [5, 300] }, "timeoutSeconds": 10, "ratePerMinute": 600,
                "headers": { "X-Tenant": "eu:1" }, "filter": { "pattern": { "data": { "a": [1] } } },
                "signatures": ["v1", "v1a"],
            })
        );
        assert_eq!(body(&["--disabled"]).unwrap(), json!({ "enabled": false }));
        assert!(body(&["--filter", "{"]).is_err());
    }

    #[test]
    fn a_secret_is_shown_when_it_is_there() {
        let mut answer = json!({
            "id": "sub_1", "status": "disabled", "statusReason": "owner", "subscriber": "tpp-1",
            "endpoint": "https://a.example", "types": ["a"], "createdAt": "2026-11-22T09:00:00Z",
            "updatedAt": "2026-11-22T09:00:00Z", "signingSecret": "whsec_x",
        });
        let shown = |answer: &Value| {
            let view: Subscription = serde_json::from_value(answer.clone()).unwrap();
            view.members("2026-11-22T10:00:00Z".parse().unwrap()).lines(false).join("\n")
        };
        let text = shown(&answer);
        assert!(text.contains("signing secret  whsec_x (shown this once)"), "{text}");
        assert!(text.contains("status          disabled (owner)"), "{text}");
        answer["signingSecret"] = Value::Null;
        assert!(!shown(&answer).contains("secret"));
    }
}
