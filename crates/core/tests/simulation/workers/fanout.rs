//! The steps of `functions/fanout`: match, plan, send, name what is unfinished.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_core::delivery::Ask;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::SubscriptionId;
use carillon_core::matching::{CLOCK_SKEW, Range, matches};

use crate::queue::{Body, Message, QueueName, Task};
use crate::rules::Rule;
use crate::sim::{Run, Undone};
use crate::world::World;

/// Events with more matches are split, into parts of so many: as small as runs are.
const EXPANSION_SIZE: usize = 3;
const PART_SIZE: usize = 2;

/// How often what could not be sent is tried again, and after how long.
const SEND_TRIES: usize = 3;
const PAUSE: u64 = 200;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    event: usize,
    range: Range,
    is_of_stream: bool,
}

impl Record {
    pub(crate) fn of_stream(event: usize) -> Self {
        Self { event, range: Range::default(), is_of_stream: true }
    }

    pub(crate) fn of(message: &Message) -> Option<Self> {
        match message.body {
            Body::Expand { event, range } => Some(Self { event, range, is_of_stream: false }),
            Body::Task(_) | Body::Unfanned { .. } => None,
        }
    }
}

/// Works records off: the places of those that are not finished. Of a stream the first is the checkpoint.
pub(crate) async fn fan_out(run: Run, records: Vec<Record>) -> BTreeSet<usize> {
    let mut unfinished = BTreeSet::new();
    // The versions of workspaces.
    if run.call(|_| ()).await.is_err() {
        return (0..records.len()).collect();
    }
    let mut planned = Vec::new();
    for (place, record) in records.iter().enumerate() {
        if let Ok(messages) = plan(&run, *record).await {
            planned.extend(messages.into_iter().map(|(to, body)| (place, to, body)));
        } else {
            unfinished.insert(place);
            if record.is_of_stream {
                break;
            }
        }
    }
    for _ in 0..SEND_TRIES {
        planned = send_once(&run, planned).await;
        if planned.is_empty() {
            break;
        }
        run.sim.sleep(PAUSE).await;
    }
    unfinished.extend(planned.into_iter().map(|(place, ..)| place));
    let is_of_stream = records.iter().any(|record| record.is_of_stream);
    match unfinished.first().copied().filter(|_| is_of_stream) {
        Some(_) if !run.world().keeps(Rule::CheckpointIsTheFirstUnfinished) => BTreeSet::new(),
        Some(first) => BTreeSet::from([first]),
        None => unfinished,
    }
}

async fn plan(run: &Run, record: Record) -> Result<Vec<(QueueName, Body)>, Undone> {
    run.call(|world| {
        let Some(event) = world.stored(record.event) else { return Vec::new() };
        let event = if world.keeps(Rule::ClocksDifferInItsFavour) { event } else { earlier(event) };
        let rows = world.match_rows(record.event);
        let candidates: Vec<_> = matches(&event, &rows, record.range).into_iter().collect();
        if candidates.len() > EXPANSION_SIZE {
            return parts(world, &candidates, record);
        }
        let numbers = candidates.into_iter().map(|(id, filtered)| (world.number_of(id), filtered));
        let passing =
            numbers.filter(|(number, filtered)| !filtered || world.filter_passes(*number, record.event));
        passing
            .map(|(number, _)| {
                let ask = Ask::Attempt { round: 1, attempt: 1 };
                let delivery = world.delivery(record.event, number);
                (QueueName::Delivery, Body::Task(Task { delivery, ask, slot: None }))
            })
            .collect()
    })
    .await
}

/// The ranges that the candidates are split into: the core's `expand`, in small.
fn parts(world: &World, candidates: &[(SubscriptionId, bool)], record: Record) -> Vec<(QueueName, Body)> {
    let ends: Vec<_> = candidates.iter().skip(PART_SIZE - 1).step_by(PART_SIZE).map(|(id, _)| *id).collect();
    let afters = std::iter::once(record.range.after).chain(ends.iter().copied().map(Some));
    let last = world.keeps(Rule::PartsCoverAll).then_some(record.range.up_to);
    let up_tos = ends.iter().copied().map(Some).chain(last);
    let ranges = afters.zip(up_tos).map(|(after, up_to)| Range { after, up_to });
    ranges.map(|range| (QueueName::Expansion, Body::Expand { event: record.event, range })).collect()
}

/// The event as if clocks did not differ.
fn earlier(event: AcceptedEvent) -> AcceptedEvent {
    let accepted_at = event.accepted_at.minus(CLOCK_SKEW + Duration::from_millis(1));
    AcceptedEvent { accepted_at, ..event }
}

type Planned = (usize, QueueName, Body);

/// Sends each message once; those that could not be sent.
async fn send_once(run: &Run, planned: Vec<Planned>) -> Vec<Planned> {
    let mut unsent = Vec::new();
    for lane in [QueueName::Delivery, QueueName::Expansion] {
        let mine: Vec<_> = planned.iter().copied().filter(|(_, to, _)| *to == lane).collect();
        let sent = run.send(lane, mine.iter().map(|(.., body)| (*body, 0)).collect()).await;
        unsent
            .extend(mine.into_iter().zip(sent).filter(|(_, sent)| sent.is_err()).map(|(planned, _)| planned));
    }
    unsent
}
