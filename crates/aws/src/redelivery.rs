//! What is sent again, page by page: the same for the jobs that send it and for the trials that count it.
//!
//! Nothing is written here. A page says what was found as it was read; whether a task still may do what it asks for is
//! decided where it is worked off.

use carillon_core::event::AcceptedEvent;
use carillon_core::id::{EventKey, WorkspaceId};
use carillon_core::job::{Cursor, Ended, Found, Redelivery, Replay, Span, Which};
use carillon_core::task::{DeliveryTask, EventRef};
use carillon_core::time::UnixMillis;

use crate::deliveries::{Delivery, DeliveryTable, Look, Open, Order, Place};
use crate::error::AwsError;
use crate::events::{EventTable, Walk};

/// How many deliveries a page looks at.
pub const ROWS: usize = 100;

/// How many events a page looks at, all of which are in memory at once.
pub const EVENTS: usize = 50;

/// The tables that are read.
#[derive(Clone, Debug)]
pub struct Pages {
    deliveries: DeliveryTable,
    events: EventTable,
}

/// What was found by looking at a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is to be sent, in the order in which the events were accepted.
    pub found: Vec<T>,
    /// How many rows or events were looked at.
    pub looked: usize,
    /// Where to go on; `None`: that was all.
    pub next: Option<Cursor>,
}

impl Pages {
    /// Of these tables.
    #[must_use]
    pub fn of(deliveries: DeliveryTable, events: EventTable) -> Self {
        Self { deliveries, events }
    }

    /// The tasks of new rounds, for deliveries that have ended as is wanted and were not attempted since `asked_at`.
    pub async fn redelivery(
        &self,
        workspace: &WorkspaceId,
        wanted: &Redelivery,
        (asked_at, now): (UnixMillis, UnixMillis),
        behind: Option<Cursor>,
    ) -> Result<Page<DeliveryTask>, AwsError> {
        let subscription = wanted.subscription;
        let (mut rows, next) = match &wanted.which {
            Which::These(deliveries) => {
                let keys = deliveries.iter().map(|delivery| delivery.event(workspace, subscription));
                let places = self.places(keys.collect(), now).await?;
                (self.deliveries.deliveries_of(subscription, places.into_iter(), now).await?, None)
            }
            Which::Of { since, until, .. } => {
                let (since, until, after) = (*since, *until, behind.map(Place::from));
                let look = Look { order: Order::Oldest, since, until, after };
                match wanted.ended {
                    Ended::Failed => {
                        self.deliveries.standing(subscription, Open::Failed, &look, ROWS, now).await?
                    }
                    // What was delivered is in no index.
                    Ended::Delivered | Ended::Both => {
                        self.deliveries.of_subscription(subscription, &look, ROWS, now).await?
                    }
                }
            }
        };
        rows.sort_unstable_by_key(Delivery::place);
        let task = |row: &Delivery| {
            let ask = wanted.ask(&found(row), asked_at)?;
            Some(row.task().asking(ask))
        };
        Ok(Page {
            found: rows.iter().filter_map(task).collect(),
            looked: rows.len(),
            next: next.map(Cursor::from),
        })
    }

    /// The tasks of deliveries that a subscription never got, of events that it `wants`.
    pub async fn replay(
        &self,
        workspace: &WorkspaceId,
        wanted: &Replay,
        wants: impl Fn(&AcceptedEvent) -> bool,
        (asked_at, now): (UnixMillis, UnixMillis),
        behind: Option<Cursor>,
    ) -> Result<Page<DeliveryTask>, AwsError> {
        let (events, next) = self.walk(workspace, wanted.span, behind, now).await?;
        let looked = events.len();
        let events: Vec<_> = events.into_iter().filter(wants).collect();
        let places = events.iter().map(Place::of_accepted);
        let rows = self.deliveries.deliveries_of(wanted.subscription, places, now).await?;
        let task = |event: &AcceptedEvent| {
            let row = rows.iter().find(|row| row.place() == Place::of_accepted(event));
            let ask = Replay::ask(row.map(found).as_ref(), asked_at)?;
            let task = DeliveryTask::first(EventRef::of(event), wanted.subscription).by_reference();
            Some(task.asking(ask))
        };
        Ok(Page { found: events.iter().filter_map(task).collect(), looked, next })
    }

    /// The events of a time, by reference.
    pub async fn events(
        &self,
        workspace: &WorkspaceId,
        span: Span,
        now: UnixMillis,
        behind: Option<Cursor>,
    ) -> Result<Page<EventRef>, AwsError> {
        let (events, next) = self.walk(workspace, span, behind, now).await?;
        let reference = |event: &AcceptedEvent| EventRef { json: None, trace: None, ..EventRef::of(event) };
        Ok(Page { found: events.iter().map(reference).collect(), looked: events.len(), next })
    }

    /// Where these events are in the order of time, those of them that are there.
    async fn places(&self, keys: Vec<EventKey>, now: UnixMillis) -> Result<Vec<Place>, AwsError> {
        let mut places = Vec::with_capacity(keys.len());
        for keys in keys.chunks(EVENTS) {
            places.extend(self.events.kept_of(keys, now).await?.iter().map(Place::of_accepted));
        }
        Ok(places)
    }

    async fn walk(
        &self,
        workspace: &WorkspaceId,
        Span { since, until }: Span,
        behind: Option<Cursor>,
        now: UnixMillis,
    ) -> Result<(Vec<AcceptedEvent>, Option<Cursor>), AwsError> {
        let walk = Walk { order: Order::Oldest, since, until, after: behind.map(Place::from) };
        let (events, next) = self.events.walk(workspace, &walk, EVENTS, now).await?;
        Ok((events, next.map(Cursor::from)))
    }
}

fn found(row: &Delivery) -> Found<'_> {
    Found {
        status: row.row.status,
        round: row.row.round,
        event_type: &row.event.event_type,
        attempted_at: row.attempts.last().map(|attempt| attempt.at),
    }
}

impl From<Cursor> for Place {
    fn from(Cursor { accepted_at, event }: Cursor) -> Self {
        Self { accepted_at, digest: event }
    }
}

impl From<Place> for Cursor {
    fn from(Place { accepted_at, digest }: Place) -> Self {
        Self { accepted_at, event: digest }
    }
}
