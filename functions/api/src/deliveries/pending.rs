//! Deliveries that are still to begin: they have no row, so they are told from what fan-out goes by.

use std::sync::OnceLock;

use carillon_core::event::AcceptedEvent;
use carillon_core::matching::{Range, matches};
use carillon_core::subscription::{FilterSource, Subscription};
use carillon_filter::Filter;
use serde_json::Value;

/// Which subscriptions an event concerns, as they are now.
#[derive(Debug)]
pub(super) struct Concern<'a> {
    event: &'a AcceptedEvent,
    /// What filters look at, once one is asked; `None`: its JSON has no value.
    json: OnceLock<Option<Value>>,
}

impl<'a> Concern<'a> {
    pub(super) fn of(event: &'a AcceptedEvent) -> Self {
        Self { event, json: OnceLock::new() }
    }

    /// Whether an event's audience leaves a subscription out, whatever it asks for: it never has a delivery of the event.
    pub(super) fn is_for_others(&self, subscription: &Subscription) -> bool {
        self.event.audience.as_ref().is_some_and(|audience| !audience.contains(&subscription.subscriber))
    }

    pub(super) fn includes(&self, subscription: &Subscription) -> bool {
        let is_asked_for =
            subscription.details.types.iter().any(|pattern| pattern.matches(&self.event.event_type));
        is_asked_for
            && !matches(self.event, subscription.match_row().as_ref(), Range::default()).is_empty()
            && subscription.details.filter.as_ref().is_none_or(|filter| self.passes(filter))
    }

    /// A filter that cannot be evaluated lets nothing through.
    fn passes(&self, filter: &FilterSource) -> bool {
        let json = self.json.get_or_init(|| serde_json::from_str(&self.event.json).ok());
        let filter = Filter::compile(filter).ok();
        json.as_ref().zip(filter).is_some_and(|(json, filter)| filter.matches(json).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::event::Event;
    use carillon_core::id::SubscriptionId;
    use carillon_core::subscription::{
        AttemptTimeout, Authorization, CustomHeaders, Details, DisabledBy, Format, Signatures, Status,
    };
    use carillon_core::time::UnixMillis;
    use serde_json::json;

    use super::*;

    const THEN: UnixMillis = UnixMillis(1_795_339_800_000);

    fn event(audience: Option<&str>) -> AcceptedEvent {
        let mut json = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "consent:created", "data": {"amount": 7},
        });
        if let Some(audience) = audience {
            json["audience"] = json!(audience);
        }
        Event::from_structured(&json.to_string()).unwrap().accepted("acme".parse().unwrap(), THEN)
    }

    fn subscription() -> Subscription {
        let details = Details {
            endpoint: serde_json::from_value(json!("https://tpp.example.com/")).unwrap(),
            title: None,
            types: vec!["consent:*".parse().unwrap()],
            filter: None,
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
        Subscription {
            id: SubscriptionId::new(THEN, [7; 10]),
            workspace: "acme".parse().unwrap(),
            subscriber: "tpp-1".parse().unwrap(),
            details,
            status: Status::Active,
            created_at: THEN,
            updated_at: THEN,
            revision: 1,
        }
    }

    fn concerns(change: impl FnOnce(&mut Subscription)) -> bool {
        let mut subscription = subscription();
        change(&mut subscription);
        Concern::of(&event(None)).includes(&subscription)
    }

    #[test]
    fn an_event_concerns_whom_fan_out_would_send_it() {
        let amount = |amount| FilterSource::Pattern(json!({"data": {"amount": [amount]}}));
        assert!(concerns(|_| {}));
        assert!(concerns(|subscription| subscription.status = Status::Paused));
        assert!(concerns(|subscription| subscription.status = Status::Disabled(DisabledBy::Owner)));
        assert!(!concerns(|subscription| subscription.status = Status::Pending));
        assert!(!concerns(|subscription| subscription.created_at = UnixMillis(THEN.0 + 10_000)));
        assert!(!concerns(
            |subscription| subscription.details.types = vec!["consent:revoked".parse().unwrap()]
        ));
        assert!(concerns(|subscription| subscription.details.filter = Some(amount(7))));
        assert!(!concerns(|subscription| subscription.details.filter = Some(amount(8))));
        let broken = FilterSource::Pattern(json!([]));
        assert!(!concerns(|subscription| subscription.details.filter = Some(broken)));
    }

    #[test]
    fn an_audience_leaves_the_others_out() {
        for (audience, is_named) in [("tpp-1 tpp-2", true), ("tpp-2", false)] {
            let event = event(Some(audience));
            let concern = Concern::of(&event);
            assert_eq!(concern.includes(&subscription()), is_named);
            assert_eq!(concern.is_for_others(&subscription()), !is_named);
        }
        assert!(!Concern::of(&event(None)).is_for_others(&subscription()));
    }
}
