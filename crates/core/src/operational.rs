//! Operational events: what Carillon itself tells of subscriptions and deliveries, as events like any other.
//!
//! They are for the subscriber alone that they concern, and for those of its subscriptions that name them: `*` asks for what
//! the platform publishes. None is about itself: the subscription that an event concerns does not get it, and attempts at
//! operational events set none off.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::delivery::FailReason;
use crate::event::{AcceptedEvent, Event, Rejected};
use crate::id::{DeliveryId, SubscriberId, SubscriptionId, WorkspaceId};
use crate::outcome::OutcomeClass;
use crate::pattern::EventType;
use crate::subscription::DisabledBy;
use crate::time::UnixMillis;

/// What their types begin with. No publisher's event and no workspace's own type may.
pub const PREFIX: &str = "carillon.";

/// After which failed attempt of a round its subscriber is told that the delivery fails, if another one is to come.
pub const FAILING_ATTEMPT: u32 = 3;

/// Whom and what an operational event concerns.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The URL of the API, before `/v1`.
    pub api: &'a str,
    /// Where.
    pub workspace: &'a WorkspaceId,
    /// Whose subscription.
    pub subscriber: &'a SubscriberId,
    /// Which one.
    pub subscription: SubscriptionId,
}

/// A delivery that went wrong.
#[derive(Clone, Copy, Debug)]
pub struct Troubled<'a> {
    /// Its id.
    pub delivery: DeliveryId,
    /// The event that it is of, as it is stored.
    pub event: &'a str,
    /// The round.
    pub round: u32,
    /// How many attempts of that round were made.
    pub attempts: u32,
    /// How the last one ended; absent where that is not known any more.
    pub outcome: Option<OutcomeClass>,
    /// With which HTTP status, if any.
    pub status: Option<u16>,
}

/// What is told.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// `carillon.delivery.failing`: [`FAILING_ATTEMPT`] attempts failed, others are to come.
    Failing(Troubled<'a>),
    /// `carillon.delivery.exhausted`: it has failed.
    Exhausted(Troubled<'a>, FailReason),
    /// `carillon.subscription.disabled`: Carillon gave its receiver up.
    Disabled {
        /// Why.
        by: DisabledBy,
        /// The subscription's revision until then.
        revision: u64,
    },
    /// `carillon.subscription.recovered`: its receiver accepts deliveries again.
    Recovered {
        /// Since when it did not.
        failing_since: UnixMillis,
    },
}

/// Whether a type is one of Carillon's own.
#[must_use]
pub fn is_operational(event_type: &EventType) -> bool {
    event_type.as_str().starts_with(PREFIX)
}

/// The subscription that an operational event is about; `None` for all other events.
#[must_use]
pub fn about(event: &AcceptedEvent) -> Option<SubscriptionId> {
    #[derive(Deserialize)]
    struct Subject {
        subject: SubscriptionId,
    }
    let told = is_operational(&event.event_type).then(|| serde_json::from_str::<Subject>(&event.json).ok());
    told.flatten().map(|told| told.subject)
}

impl News<'_> {
    /// The event that tells it. The same news make the same identity, whoever tells them and how often.
    pub fn event(&self, about: About<'_>, now: UnixMillis) -> Result<Event, Rejected> {
        let About { api, workspace, subscriber, subscription } = about;
        let (name, id, mut data) = match self {
            Self::Failing(troubled) => ("delivery.failing", troubled.id("failing"), troubled.data()),
            Self::Exhausted(troubled, reason) => {
                let mut data = troubled.data();
                data["reason"] = json!(reason);
                ("delivery.exhausted", troubled.id("exhausted"), data)
            }
            Self::Disabled { by, revision } => (
                "subscription.disabled",
                format!("{subscription}-disabled-{revision}"),
                json!({ "reason": by }),
            ),
            Self::Recovered { failing_since } => (
                "subscription.recovered",
                format!("{subscription}-recovered-{}", failing_since.0),
                json!({ "failingSince": failing_since.to_string() }),
            ),
        };
        data["subscription"] = json!(subscription);
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": format!("{api}/v1/workspaces/{workspace}"),
            "type": format!("{PREFIX}{name}"),
            "subject": subscription,
            "time": now.to_string(),
            "audience": subscriber,
            "data": data,
        });
        Event::from_structured(&event.to_string())
    }
}

impl Troubled<'_> {
    fn id(&self, news: &str) -> String {
        format!("{}-{news}-{}", self.delivery, self.round)
    }

    fn data(&self) -> Value {
        #[derive(Deserialize)]
        struct Identity {
            id: Value,
            source: Value,
            r#type: Value,
        }
        let event = serde_json::from_str::<Identity>(self.event).ok();
        let event = event
            .map(|Identity { id, source, r#type }| json!({ "id": id, "source": source, "type": r#type }));
        let mut data = json!({ "delivery": self.delivery, "round": self.round, "attempts": self.attempts });
        for (name, value) in [
            ("event", event),
            ("outcome", self.outcome.map(|it| json!(it))),
            ("status", self.status.map(Value::from)),
        ] {
            if let Some(value) = value {
                data[name] = value;
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://hooks.example.com";

    fn told(news: News<'_>) -> AcceptedEvent {
        let (workspace, subscriber) = ("acme".parse().unwrap(), "tpp-1".parse().unwrap());
        let about =
            About { api: API, workspace: &workspace, subscriber: &subscriber, subscription: subscription() };
        let event = news.event(about, UnixMillis(1_795_339_800_007)).unwrap();
        event.accepted(workspace, UnixMillis(1_795_339_800_007))
    }

    fn subscription() -> SubscriptionId {
        "sub_00000000000000000000000000".parse().unwrap()
    }

    fn troubled(event: &str) -> Troubled<'_> {
        let key = "acme/00000000000000000000000000000000".parse().unwrap();
        Troubled {
            delivery: DeliveryId::of(&key, subscription()),
            event,
            round: 2,
            attempts: 3,
            outcome: Some(OutcomeClass::TimedOut),
            status: None,
        }
    }

    #[test]
    fn they_name_what_they_are_about_and_whom_they_are_for() {
        let event = r#"{"id":"1","source":"/s","specversion":"1.0","type":"t","data":{"a":1}}"#;
        let told = told(News::Exhausted(troubled(event), FailReason::Exhausted));
        assert_eq!(told.event_type.as_str(), "carillon.delivery.exhausted");
        assert_eq!(about(&told), Some(subscription()));
        assert_eq!(told.audience, Some([("tpp-1".parse().unwrap())].into()));
        let json: Value = serde_json::from_str(&told.json).unwrap();
        assert_eq!(json["source"], "https://hooks.example.com/v1/workspaces/acme");
        assert_eq!(json["time"], "2026-11-22T09:30:00.007Z");
        let delivery = troubled(event).delivery;
        assert_eq!(
            json["data"],
            json!({
                "subscription": subscription(), "delivery": delivery, "round": 2, "attempts": 3, "outcome": "timedOut",
                "reason": "exhausted", "event": { "id": "1", "source": "/s", "type": "t" },
            })
        );
    }

    #[test]
    fn the_same_news_are_one_event() {
        let key = |news| told(news).key;
        let since = |at| News::Recovered { failing_since: UnixMillis(at) };
        assert_eq!(key(since(7)), key(since(7)));
        assert_ne!(key(since(7)), key(since(8)));
        let gone = News::Disabled { by: DisabledBy::Gone, revision: 3 };
        assert_ne!(key(gone), key(News::Disabled { by: DisabledBy::Gone, revision: 4 }));
        assert_ne!(
            key(News::Failing(troubled("{}"))),
            key(News::Exhausted(troubled("{}"), FailReason::Refused))
        );
    }

    #[test]
    fn other_events_are_about_nothing() {
        let json = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"{}"}}"#,
            subscription()
        );
        let event = Event::from_structured(&json).unwrap().accepted("acme".parse().unwrap(), UnixMillis(0));
        assert_eq!(about(&event), None);
    }
}
