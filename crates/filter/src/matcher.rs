//! What one subscription wants, whatever was accepted when.

use std::panic::{AssertUnwindSafe, catch_unwind};

use carillon_core::event::AcceptedEvent;
use carillon_core::id::{SubscriberId, SubscriptionId};
use carillon_core::operational;
use carillon_core::pattern::TypePattern;
use carillon_core::subscription::Subscription;
use serde_json::Value;

use crate::Filter;

/// A subscription as it is now, ready to be asked of many events: what fan-out goes by, but for the time since when the
/// subscription is there.
#[derive(Debug)]
pub struct Matcher {
    subscription: SubscriptionId,
    subscriber: SubscriberId,
    types: Vec<TypePattern>,
    filter: Which,
}

/// Which events of its types it wants.
#[derive(Debug)]
enum Which {
    All,
    Matching(Filter),
    /// Its filter cannot be compiled.
    None,
}

impl Matcher {
    /// Of a subscription.
    #[must_use]
    pub fn of(subscription: &Subscription) -> Self {
        let details = &subscription.details;
        let filter = match &details.filter {
            None => Which::All,
            Some(source) => match catch_unwind(AssertUnwindSafe(|| Filter::compile(source))) {
                Ok(Ok(filter)) => Which::Matching(filter),
                _ => Which::None,
            },
        };
        Self {
            subscription: subscription.id,
            subscriber: subscription.subscriber.clone(),
            types: details.types.clone(),
            filter,
        }
    }

    /// Whether the subscription wants an event. A filter that cannot be evaluated lets nothing through.
    #[must_use]
    pub fn wants(&self, event: &AcceptedEvent) -> bool {
        let is_addressed = event.audience.as_ref().is_none_or(|audience| audience.contains(&self.subscriber));
        is_addressed
            && self.types.iter().any(|pattern| pattern.matches(&event.event_type))
            && operational::about(event) != Some(self.subscription)
            && match &self.filter {
                Which::All => true,
                Which::Matching(filter) => passes(filter, event),
                Which::None => false,
            }
    }
}

/// A panic is the filter's fault alone, and must not keep the events behind this one.
fn passes(filter: &Filter, event: &AcceptedEvent) -> bool {
    let Ok(json) = serde_json::from_str::<Value>(&event.json) else { return false };
    let verdict = catch_unwind(AssertUnwindSafe(|| filter.matches(&json)));
    matches!(verdict, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use carillon_core::event::Event;
    use carillon_core::subscription::{
        AttemptTimeout, Authorization, CustomHeaders, Details, FilterSource, Format, Signatures, Status,
    };
    use carillon_core::time::UnixMillis;
    use serde_json::json;

    use super::*;

    fn event(event_type: &str, audience: Option<&str>) -> AcceptedEvent {
        let mut json = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": event_type, "data": {"amount": 7},
        });
        if let Some(audience) = audience {
            json["audience"] = json!(audience);
        }
        Event::from_structured(&json.to_string()).unwrap().accepted("acme".parse().unwrap(), UnixMillis(1))
    }

    fn matcher(types: &[&str], filter: Option<Value>) -> Matcher {
        let details = Details {
            endpoint: serde_json::from_value(json!("https://tpp.example.com/")).unwrap(),
            title: None,
            types: types.iter().map(|text| text.parse().unwrap()).collect(),
            filter: filter.map(FilterSource::Pattern),
            format: Format::default(),
            token: None,
            signatures: Signatures::default(),
            authorization: Authorization::None,
            client_certificate: None,
            headers: CustomHeaders::default(),
            retry_policy: None,
            timeout: AttemptTimeout::default(),
            rate_per_minute: None,
        };
        Matcher::of(&Subscription {
            id: SubscriptionId::new(UnixMillis(1), [7; 10]),
            workspace: "acme".parse().unwrap(),
            subscriber: "tpp-1".parse().unwrap(),
            details,
            status: Status::Active,
            // Later than all events.
            created_at: UnixMillis(9_000_000_000_000),
            updated_at: UnixMillis(9_000_000_000_000),
            revision: 1,
        })
    }

    #[test]
    fn types_audience_and_filter_must_agree() {
        let amount = |amount: u32| Some(json!({"data": {"amount": [amount]}}));
        for (types, filter, audience, wanted) in [
            (&["consent:*"][..], None, None, true),
            (&["consent:revoked", "*"], None, Some("tpp-1 tpp-2"), true),
            (&["consent:revoked"], None, None, false),
            (&["consent:*"], None, Some("tpp-2"), false),
            (&["consent:*"], amount(7), None, true),
            (&["consent:*"], amount(8), None, false),
            (&["consent:*"], Some(json!([])), None, false),
        ] {
            let matcher = matcher(types, filter.clone());
            assert_eq!(
                matcher.wants(&event("consent:created", audience)),
                wanted,
                "{types:?} {filter:?} {audience:?}"
            );
        }
    }

    #[test]
    fn news_are_not_told_to_the_one_that_they_are_about() {
        let matcher = matcher(&["carillon.*"], None);
        let about = |subject: SubscriptionId| {
            let json = json!({
                "specversion": "1.0", "id": "1", "source": "/s", "type": "carillon.delivery.failing", "subject": subject,
            });
            Event::from_structured(&json.to_string())
                .unwrap()
                .accepted("acme".parse().unwrap(), UnixMillis(1))
        };
        assert!(!matcher.wants(&about(matcher.subscription)));
        assert!(matcher.wants(&about(SubscriptionId::new(UnixMillis(2), [8; 10]))));
    }
}
