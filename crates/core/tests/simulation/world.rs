//! All that there is: what people set up, tables, queues, the stream, receivers; made from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use carillon_core::event::{AcceptedEvent, Event};
use carillon_core::health::Health;
use carillon_core::id::{DeliveryId, SubscriberId, SubscriptionId};
use carillon_core::matching::MatchRow;
use carillon_core::retry::{Pace, QUEUE_DELAY_MAX, RetryPolicy};
use carillon_core::subscription::Rate;
use carillon_core::time::UnixMillis;

use crate::checks::{Life, Report};
use crate::queue::{QUEUES, Queue, Task};
use crate::receiver::Receiver;
use crate::rules::Rule;
use crate::seed::Chance;
use crate::sim::{RunState, Wake};
use crate::tables::Item;

/// When each simulation begins.
pub(crate) const BEGIN: u64 = 1_800_000_000_000;

/// How many parts schedule and index are spread over: fewer than there are, so that they are shared.
pub(crate) const SHARDS: usize = 3;

pub(crate) const STREAM_SHARDS: usize = 3;

/// The most events of a run.
pub(crate) const EVENTS_MAX: usize = 40;

const TYPES: [&str; 3] = ["consent:given", "consent:revoked", "payment:made"];

/// Each event that a run can have; when it was accepted is written in by its acceptance.
static EVENTS: LazyLock<Vec<AcceptedEvent>> = LazyLock::new(|| (0..EVENTS_MAX).map(event).collect());

fn event(number: usize) -> AcceptedEvent {
    let (kind, workspace) = (TYPES[number % TYPES.len()], ["acme", "other"][workspace_of(number)]);
    let audience = if number.is_multiple_of(5) { r#","audience":"tpp-0""# } else { "" };
    let json = format!(
        r#"{{"specversion":"1.0","id":"{number}","source":"/s","type":"{kind}","data":{{}}{audience}}}"#
    );
    Event::from_structured(&json).unwrap().accepted(workspace.parse().unwrap(), UnixMillis(0))
}

/// Most events are of the first workspace.
fn workspace_of(event: usize) -> usize {
    usize::from(event % 4 == 3)
}

/// How often what goes wrong does so, in a thousand times; how far two clocks lie apart, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    /// Of the runs.
    pub(crate) deaths: u64,
    pub(crate) duplicates: u64,
    /// Messages that come again while the first function is at work.
    pub(crate) early: u64,
    /// Messages that are done, but come again.
    pub(crate) unremoved: u64,
    pub(crate) skew: u64,
    /// How far the sparse index lags behind at most, in milliseconds.
    pub(crate) lag: u64,
}

impl Faults {
    fn of(chance: &mut Chance) -> Self {
        let wild = chance.one_of(&[1, 1, 4]);
        let lag = chance.one_of(&[0, 2000, 90_000]);
        let mut rate = |most: u64| if chance.happens(250) { 0 } else { chance.below(most * wild) };
        Self {
            refused: rate(12),
            lost: rate(12),
            late: rate(40),
            deaths: rate(80),
            duplicates: rate(40),
            early: rate(25),
            unremoved: rate(40),
            skew: rate(501).min(500),
            lag,
        }
    }
}

/// Whether a subscription gets anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Paused,
    Disabled,
    /// Its endpoint's owner is asked until then.
    Pending(UnixMillis),
}

/// What people say of a subscription.
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    subscriber: SubscriberId,
    workspace: usize,
    /// Which types it asks for.
    types: [bool; TYPES.len()],
    /// Its filter: only events whose number leaves this rest by two.
    rest: Option<usize>,
    pub(crate) target: Rc<Target>,
    /// By the clock of the function that made it; absent until then.
    pub(crate) created_at: Option<UnixMillis>,
    /// When whoever made it was told so.
    pub(crate) answered_at: Option<u64>,
    pub(crate) is_deleted: bool,
    /// Whether it ever was disabled, or waited for its endpoint's owner.
    pub(crate) was_disabled: bool,
    /// Since when whoever stopped it knows that it is.
    pub(crate) stopped_at: Option<u64>,
}

/// What an attempt needs of a subscription.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) standing: Standing,
    pub(crate) revision: u64,
    pub(crate) rate: Option<Rate>,
    pub(crate) timeout: Duration,
    pub(crate) policy: Rc<RetryPolicy>,
}

impl Target {
    pub(crate) fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.standing == Standing::Paused
    }

    pub(crate) fn is_awaited(&self, now: UnixMillis) -> bool {
        matches!(self.standing, Standing::Pending(until) if now < until)
    }
}

/// An event, once it is accepted.
#[derive(Default)]
pub(crate) struct EventItem {
    pub(crate) accepted_at: Option<UnixMillis>,
    /// When its publisher asked.
    pub(crate) asked_at: u64,
}

/// What changes of a subscription as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) slow: bool,
    pub(crate) quick: u32,
    pub(crate) health: Health,
    pub(crate) health_of: u64,
    pub(crate) health_writes: u64,
    pub(crate) next_slot: Option<u64>,
    pub(crate) slot_spacing: Option<u64>,
}

/// A function's environment: a clock, and what it keeps.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) run: usize,
    pub(crate) skew: u64,
    /// By subscription: what it was when it was read.
    pub(crate) targets: BTreeMap<usize, Kept>,
    /// By subscription: when it noted last that it holds something.
    pub(crate) noted: BTreeMap<usize, UnixMillis>,
}

/// When a subscription was read, and what it was then; `None`: it is no more.
pub(crate) type Kept = (UnixMillis, Option<Rc<Target>>);

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) broken: Option<Rule>,
    pub(crate) told: bool,
    pub(crate) faults: Faults,
    pub(crate) pace: Pace,
    /// When the last fault happens.
    pub(crate) troubled_until: u64,
    pub(crate) is_healed: bool,

    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) events: Vec<EventItem>,
    pub(crate) receivers: Vec<Receiver>,

    /// By delivery: event by event, and of an event subscription by subscription.
    pub(crate) rows: Vec<Option<Item>>,
    pub(crate) states: Vec<State>,
    pub(crate) due: BTreeMap<(usize, UnixMillis, usize), Task>,
    /// By shard and subscription.
    pub(crate) notes: BTreeMap<(usize, usize), UnixMillis>,
    pub(crate) leases: [UnixMillis; SHARDS],
    pub(crate) queues: [Queue; QUEUES],
    pub(crate) stream: [VecDeque<usize>; STREAM_SHARDS],
    /// Batches of the stream that are not finished.
    pub(crate) stream_batches: usize,
    pub(crate) messages_sent: u64,
    pub(crate) writers: u64,

    pub(crate) runs: Vec<RunState>,
    pub(crate) environments: Vec<Environment>,
    pub(crate) wakes: Vec<(u64, Wake)>,
    pub(crate) kills: Vec<usize>,

    pub(crate) lives: Vec<Life>,
    pub(crate) report: Report,
    ids: Vec<Option<DeliveryId>>,
}

impl World {
    pub(crate) fn of(seed: u64, broken: Option<Rule>, told: bool) -> Self {
        let mut chance = Chance::of(seed);
        let faults = Faults::of(&mut chance);
        let is_large = chance.happens(60);
        let subscriptions = if is_large { chance.between(4, 7) } else { chance.between(1, 4) };
        let subscriptions: Vec<_> =
            (0..subscriptions).map(|number| Subscription::of(number, &mut chance)).collect();
        let events = if is_large { chance.between(15, EVENTS_MAX as u64) } else { chance.between(1, 9) };
        let events: Vec<_> = (0..events).map(|_| EventItem::default()).collect();
        let deliveries = subscriptions.len() * events.len();
        let at_once = usize::try_from(chance.one_of(&[2, 5, 40])).unwrap();
        let receives_max = u32::try_from(chance.between(2, 6)).unwrap();
        let queue = |at_once| Queue::new(at_once, receives_max);
        Self {
            now: BEGIN,
            broken,
            told,
            faults,
            pace: Pace::new(1.0, QUEUE_DELAY_MAX).unwrap(),
            troubled_until: BEGIN + chance.between(5, 60) * 60_000,
            is_healed: false,
            receivers: subscriptions.iter().map(|_| Receiver::of(&mut chance)).collect(),
            rows: (0..deliveries).map(|_| None).collect(),
            states: subscriptions.iter().map(|_| State::default()).collect(),
            due: BTreeMap::new(),
            notes: BTreeMap::new(),
            leases: [UnixMillis(0); SHARDS],
            queues: [queue(at_once), queue(at_once), queue(2), queue(0), queue(0), queue(0)],
            stream: Default::default(),
            stream_batches: 0,
            messages_sent: 0,
            writers: 0,
            runs: Vec::new(),
            environments: Vec::new(),
            wakes: Vec::new(),
            kills: Vec::new(),
            lives: (0..deliveries).map(|_| Life::default()).collect(),
            report: Report::default(),
            ids: vec![None; deliveries],
            subscriptions,
            events,
            chance,
        }
    }

    /// Whether a rule holds in this run.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    pub(crate) fn delivery(&self, event: usize, subscription: usize) -> usize {
        event * self.subscriptions.len() + subscription
    }

    pub(crate) fn event_of(&self, delivery: usize) -> usize {
        delivery / self.subscriptions.len()
    }

    pub(crate) fn subscription_of(&self, delivery: usize) -> usize {
        delivery % self.subscriptions.len()
    }

    pub(crate) fn id_of(&mut self, delivery: usize) -> DeliveryId {
        if let Some(id) = self.ids[delivery] {
            return id;
        }
        let subscription = self.subscriptions[self.subscription_of(delivery)].id;
        let id = DeliveryId::of(&EVENTS[self.event_of(delivery)].key, subscription);
        self.ids[delivery] = Some(id);
        id
    }

    /// An event as it is stored.
    pub(crate) fn stored(&self, event: usize) -> Option<AcceptedEvent> {
        let accepted_at = self.events[event].accepted_at?;
        Some(AcceptedEvent { accepted_at, ..EVENTS[event].clone() })
    }

    /// The rows that fan-out finds for an event, with the numbers of their subscriptions.
    pub(crate) fn match_rows(&self, event: usize) -> Vec<MatchRow> {
        let all = self.subscriptions.iter().enumerate();
        all.filter_map(|(number, subscription)| {
            let asks = self.asks_for(number, event) && !subscription.is_deleted;
            asks.then_some(MatchRow {
                subscription: subscription.id,
                subscriber: subscription.subscriber.clone(),
                filtered: subscription.rest.is_some(),
                created_at: subscription.created_at?,
            })
        })
        .collect()
    }

    fn asks_for(&self, subscription: usize, event: usize) -> bool {
        let subscription = &self.subscriptions[subscription];
        subscription.workspace == workspace_of(event) && subscription.types[event % TYPES.len()]
    }

    /// Whether a subscription's filter lets an event through.
    pub(crate) fn filter_passes(&self, subscription: usize, event: usize) -> bool {
        self.subscriptions[subscription].rest.is_none_or(|rest| event % 2 == rest)
    }

    /// Whether an event concerns a subscription, were it there in time.
    pub(crate) fn concerns(&self, event: usize, subscription: usize) -> bool {
        let audience = EVENTS[event].audience.as_ref();
        let subscriber = &self.subscriptions[subscription].subscriber;
        self.asks_for(subscription, event)
            && self.filter_passes(subscription, event)
            && audience.is_none_or(|audience| audience.contains(subscriber))
    }

    pub(crate) fn number_of(&self, id: SubscriptionId) -> usize {
        self.subscriptions.iter().position(|subscription| subscription.id == id).unwrap()
    }

    /// Changes what people say of a subscription, who know it a moment later.
    pub(crate) fn change(&mut self, subscription: usize, standing: Standing) {
        let now = self.now;
        let subscription = &mut self.subscriptions[subscription];
        let target = Rc::make_mut(&mut subscription.target);
        target.standing = standing;
        target.revision += 1;
        subscription.was_disabled |= matches!(standing, Standing::Disabled | Standing::Pending(_));
        let stops = standing != Standing::Active;
        subscription.stopped_at = stops.then(|| subscription.stopped_at.unwrap_or(now));
    }

    /// What is said of a run that is replayed.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            tell(self.now - BEGIN, &what());
        }
    }
}

#[expect(clippy::print_stdout, reason = "a seed is replayed to be read")]
fn tell(millis: u64, what: &str) {
    println!("{:>10}.{:03} {what}", millis / 1000, millis % 1000);
}

impl Subscription {
    fn of(number: u64, chance: &mut Chance) -> Self {
        let mut random = [0; 10];
        random[0] = u8::try_from(number).unwrap();
        let seconds: &[u64] = match chance.below(10) {
            0 => return Self::with_policy(number, chance, random, RetryPolicy::default()),
            1 => &[],
            2 => &[1200, 2400],
            3 => &[1, 1],
            4..=6 => &[5, 60, 300],
            _ => &[5, 300, 1800],
        };
        let steps = seconds.iter().copied().map(Duration::from_secs).collect();
        Self::with_policy(number, chance, random, RetryPolicy::new(steps).unwrap())
    }

    fn with_policy(number: u64, chance: &mut Chance, random: [u8; 10], policy: RetryPolicy) -> Self {
        let rate = chance.happens(400).then(|| u32::try_from(chance.one_of(&[1, 2, 5, 30])).unwrap());
        let mut types = [0; TYPES.len()].map(|_| chance.happens(700));
        types[chance.index(TYPES.len())] = true;
        let target = Target {
            standing: Standing::Active,
            revision: 1,
            rate: rate.map(|rate| rate.try_into().unwrap()),
            timeout: Duration::from_secs(chance.one_of(&[2, 5, 15, 15, 30])),
            policy: Rc::new(policy),
        };
        Self {
            id: SubscriptionId::new(UnixMillis(BEGIN + number), random),
            subscriber: format!("tpp-{}", number % 2).parse().unwrap(),
            workspace: usize::from(chance.happens(200)),
            types,
            rest: chance.happens(250).then(|| chance.index(2)),
            target: Rc::new(target),
            created_at: None,
            answered_at: None,
            is_deleted: false,
            was_disabled: false,
            stopped_at: None,
        }
    }
}
