//! What is promised, looked at while it happens and in the end.

use carillon_core::delivery::{Admission, Decision, FailReason, Status};
use carillon_core::time::UnixMillis;

use crate::queue::{Body, QueueName};
use crate::receiver::{Answer, Arrival};
use crate::tables::Write;
use crate::world::World;
use carillon_core::delivery::Ask;

/// For how long after a change a batch may still begin by what was known before, in milliseconds: as long as a function
/// keeps a subscription, and the moment until whoever changed it is answered.
const KNOWN_FOR: u64 = 4100;

/// How far the clocks of two functions lie apart at most, in milliseconds, and a moment.
const SKEW: u64 = 600;

const MINUTE: u64 = 60_000;

/// What was seen of a delivery.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Whether somebody asked for it though it came before its subscription.
    pub(crate) is_replayed: bool,
    recorded: Vec<(u32, u32)>,
    /// In which rounds, when.
    delivered: Vec<(u32, u64)>,
    /// What the rounds followed, and whether by force.
    rounds: Vec<(u32, bool)>,
    /// The attempts that tasks were sent for by those who recorded the one before.
    sent: Vec<(u32, u32)>,
    put_off: Option<((u32, u32), UnixMillis)>,
    resent: Option<((u32, u32), UnixMillis)>,
    /// Posts under way: the run, the attempt, and whether it was leased.
    under_way: Vec<(usize, (u32, u32), Kind)>,
    /// How often a receiver has accepted it.
    accepted: u64,
}

/// What a post is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) is_leased: bool,
    pub(crate) is_trial: bool,
    /// The time of its slot.
    pub(crate) slot: Option<u64>,
    /// When its batch began to be read, and when the row was that it was admitted by.
    pub(crate) began_at: u64,
    pub(crate) read_at: u64,
}

/// What happened in a run, for those who ask whether it happened at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) runs: u64,
    pub(crate) deaths: u64,
    pub(crate) lost_answers: u64,
    pub(crate) set_aside: u64,
    pub(crate) given_up: u64,
    pub(crate) posts: u64,
    /// Of what the receiver had accepted before.
    pub(crate) duplicates: u64,
    pub(crate) deliveries: u64,
    pub(crate) failed: u64,
    pub(crate) held: u64,
    pub(crate) released: u64,
    pub(crate) resent: u64,
    pub(crate) handed_over: u64,
    pub(crate) circuits: u64,
    pub(crate) trials: u64,
    pub(crate) rounds: u64,
    /// By how many milliseconds an attempt came after the answer to the change that stops it, at most.
    pub(crate) latest_after_stop: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.violations.extend(other.violations);
        self.latest_after_stop = self.latest_after_stop.max(other.latest_after_stop);
        for (mine, its) in [
            (&mut self.runs, other.runs),
            (&mut self.deaths, other.deaths),
            (&mut self.lost_answers, other.lost_answers),
            (&mut self.set_aside, other.set_aside),
            (&mut self.given_up, other.given_up),
            (&mut self.posts, other.posts),
            (&mut self.duplicates, other.duplicates),
            (&mut self.deliveries, other.deliveries),
            (&mut self.failed, other.failed),
            (&mut self.held, other.held),
            (&mut self.released, other.released),
            (&mut self.resent, other.resent),
            (&mut self.handed_over, other.handed_over),
            (&mut self.circuits, other.circuits),
            (&mut self.trials, other.trials),
            (&mut self.rounds, other.rounds),
        ] {
            *mine += its;
        }
    }
}

impl World {
    pub(crate) fn violation(&mut self, what: String) {
        self.tell(|| format!("VIOLATION: {what}"));
        self.report.violations.push(what);
    }

    fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation(what());
        }
    }

    /// An attempt was recorded.
    pub(crate) fn witness_record(&mut self, write: Write, decision: Decision) {
        let Write { delivery, round, attempt, .. } = write;
        let now = self.now;
        let life = &mut self.lives[delivery];
        let is_new = !life.recorded.contains(&(round, attempt));
        let follows = attempt == 1 || life.recorded.contains(&(round, attempt - 1));
        life.recorded.push((round, attempt));
        if decision == Decision::Delivered {
            life.delivered.push((round, now));
        }
        self.demand(is_new, || format!("delivery {delivery}: attempt {round}.{attempt} was recorded twice"));
        self.demand(follows, || {
            format!("delivery {delivery}: there is a gap before attempt {round}.{attempt}")
        });
    }

    /// The next task is about to be sent by whoever recorded the attempt before.
    pub(crate) fn witness_send(&mut self, delivery: usize, next: (u32, u32)) {
        let life = &mut self.lives[delivery];
        let is_first = !life.sent.contains(&next);
        life.sent.push(next);
        self.demand(is_first, || format!("delivery {delivery}: the chain forked before attempt {next:?}"));
    }

    pub(crate) fn witness_put_off(&mut self, write: Write, until: UnixMillis) {
        let Write { delivery, round, attempt, now, .. } = write;
        let before = self.lives[delivery].put_off.replace(((round, attempt), until));
        let is_over = before.is_none_or(|(of, until)| of != (round, attempt) || now.0 + SKEW >= until.0);
        self.demand(is_over, || {
            format!("delivery {delivery}: attempt {round}.{attempt} was put off twice at once")
        });
    }

    pub(crate) fn witness_resend(&mut self, write: Write) {
        let Write { delivery, round, attempt, now, .. } = write;
        let before = self.lives[delivery].resent.replace(((round, attempt), now));
        let apart = self.pace.overdue();
        let is_seldom = before.is_none_or(|(of, at)| of != (round, attempt) || now.since(at) >= apart);
        self.demand(is_seldom, || {
            format!("delivery {delivery}: attempt {round}.{attempt} was sent again, and again too soon")
        });
    }

    pub(crate) fn witness_round(&mut self, write: Write, after: u32, forced: bool) {
        let delivery = write.delivery;
        self.report.rounds += 1;
        let life = &mut self.lives[delivery];
        let is_new = life.rounds.iter().all(|(other, _)| *other != after);
        life.rounds.push((after, forced));
        self.demand(is_new, || format!("delivery {delivery}: two rounds followed round {after}"));
    }

    /// Somebody could not record what it had posted.
    pub(crate) fn witness_loss(&mut self, write: Write, admission: Admission, lease_until: UnixMillis) {
        let Write { delivery, round, attempt, .. } = write;
        let Some(item) = &self.rows[delivery] else { return };
        let is_its_turn = item.row.round == round && item.row.status != Status::Cancelled;
        let is_leased = admission != Admission::First && self.now + SKEW < lease_until.0;
        let is_deleted = self.subscriptions[self.subscription_of(delivery)].is_deleted;
        let is_wrong = is_its_turn && is_leased && !is_deleted;
        self.demand(!is_wrong, || {
            format!("delivery {delivery}: attempt {round}.{attempt} was made under a lease, and lost")
        });
    }

    /// A request goes to a receiver.
    pub(crate) fn begin_post(&mut self, write: Write, run: usize, kind: Kind) -> Answer {
        let Write { delivery, round, attempt, .. } = write;
        let (now, subscription) = (self.now, self.subscription_of(delivery));
        self.tell(|| format!("delivery {delivery}: attempt {round}.{attempt} is posted"));
        self.report.posts += 1;
        self.report.trials += u64::from(kind.is_trial);
        self.witness_post(write, run, kind);
        let answer = self.receivers[subscription].answer(&mut self.chance);
        let request = (delivery, round, attempt, kind.slot.unwrap_or(now));
        let at = now + answer.way;
        self.receivers[subscription].arrived.push(Arrival { at, request, is_trial: kind.is_trial });
        let life = &mut self.lives[delivery];
        if life.accepted > 0 {
            self.report.duplicates += 1;
        }
        if matches!(answer.outcome.status(), Some(200..=299)) {
            life.accepted += 1;
        }
        life.under_way.push((run, (round, attempt), kind));
        answer
    }

    fn witness_post(&mut self, write: Write, run: usize, kind: Kind) {
        let Write { delivery, round, attempt, .. } = write;
        let (now, stored) = (self.now, &self.subscriptions[self.subscription_of(delivery)]);
        let since_stop = stored.stopped_at.map_or(0, |stopped_at| now.saturating_sub(stopped_at));
        self.report.latest_after_stop = self.report.latest_after_stop.max(since_stop);
        // What a task waits for after its batch was read is its slot, and calls that take seconds.
        self.demand(since_stop <= KNOWN_FOR + (now - kind.began_at), || {
            format!("delivery {delivery}: attempt {round}.{attempt} began {since_stop} ms after its subscription stopped")
        });

        let life = &self.lives[delivery];
        let forced_since =
            |of: u32| life.rounds.iter().any(|(after, forced)| *forced && (of..round).contains(after));
        // Of one moment the read may have been the first.
        let ended =
            life.delivered.iter().any(|(of, at)| *of <= round && *at < kind.read_at && !forced_since(*of));
        self.demand(!ended, || {
            format!(
                "delivery {delivery}: attempt {round}.{attempt} was posted though it was delivered before"
            )
        });

        let alive = |of: usize| self.runs[of].alive;
        let others = &self.lives[delivery].under_way;
        let is_alone = !kind.is_leased
            || others
                .iter()
                .all(|(of, numbers, other)| !alive(*of) || *numbers != (round, attempt) || !other.is_leased);
        let subscriptions = self.subscriptions.len();
        let others = (self.subscription_of(delivery)..self.lives.len()).step_by(subscriptions);
        let trials = others.flat_map(|delivery| &self.lives[delivery].under_way);
        let other_trial = trials.filter(|(of, _, other)| alive(*of) && *of != run && other.is_trial).count();
        self.demand(is_alone, || {
            format!(
                "delivery {delivery}: attempt {round}.{attempt} was made twice at once, in spite of its lease"
            )
        });
        self.demand(!kind.is_trial || other_trial == 0, || {
            format!("delivery {delivery}: two trials were made at once")
        });
        // What was put off may come earlier: once its endpoint's owner consents there is nothing to wait for.
        let waits = kind.is_leased && attempt > 1;
        let due = self.rows[delivery].as_ref().filter(|_| waits).and_then(|item| item.row.next_at);
        self.demand(due.is_none_or(|due| now + 2 * SKEW >= due.0), || {
            format!("delivery {delivery}: attempt {round}.{attempt} was made before it was due")
        });
    }

    pub(crate) fn end_post(&mut self, delivery: usize, run: usize, numbers: (u32, u32)) {
        self.lives[delivery].under_way.retain(|(of, attempt, _)| (*of, *attempt) != (run, numbers));
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_at_rest(&self) -> bool {
        let working = [
            QueueName::Delivery,
            QueueName::Slow,
            QueueName::Expansion,
            QueueName::Crashed,
            QueueName::FanoutFailures,
        ];
        working.iter().all(|name| self.queues[*name as usize].messages.is_empty())
            && self.stream.iter().all(std::collections::VecDeque::is_empty)
            && self.stream_batches == 0
            && self.due.is_empty()
            && self.notes.is_empty()
            && self.rows.iter().flatten().all(|item| !is_open(item.row.status))
    }

    /// What is left, of a run that did not come to rest.
    pub(crate) fn rest(&self) -> String {
        let rows = self.rows.iter().enumerate();
        let open: Vec<_> = rows
            .filter_map(|(delivery, item)| Some((delivery, &item.as_ref()?.row)))
            .filter(|(_, row)| is_open(row.status))
            .collect();
        let queues: Vec<_> = self.queues.iter().map(|queue| queue.messages.len()).collect();
        format!("rows {open:?}, queues {queues:?}, schedule {:?}, notes {:?}", self.due, self.notes)
    }

    /// What must hold once all has come to rest; `redelivered`: and all that failed was redelivered.
    pub(crate) fn check(&mut self, redelivered: bool) {
        for delivery in 0..self.rows.len() {
            self.check_delivery(delivery, redelivered);
        }
        if redelivered {
            for subscription in 0..self.subscriptions.len() {
                self.check_rate(subscription);
            }
        }
    }

    fn check_delivery(&mut self, delivery: usize, redelivered: bool) {
        let (event, subscription) = (self.event_of(delivery), self.subscription_of(delivery));
        let stored = &self.subscriptions[subscription];
        let is_deleted = stored.is_deleted;
        let Some(accepted_at) = self.events[event].accepted_at else { return };
        let asked_at = self.events[event].asked_at;
        let was_there = stored.answered_at.is_some_and(|answered_at| answered_at < asked_at);
        let is_wanted = (was_there && self.concerns(event, subscription)) || self.lives[delivery].is_replayed;
        let may_be = self.lives[delivery].is_replayed
            || self.concerns(event, subscription)
                && stored.created_at.is_some_and(|created_at| created_at.0 <= accepted_at.0 + 500);
        let item = self.rows[delivery].clone();
        self.report.deliveries += u64::from(item.is_some() && !redelivered);
        self.demand(item.is_none() || may_be, || format!("delivery {delivery}: nobody asked for it"));
        let Some(item) = item else {
            self.demand(!is_wanted || is_deleted, || format!("delivery {delivery}: it was lost"));
            return;
        };
        let (status, round) = (item.row.status, item.row.round);
        self.demand(status != Status::Cancelled || is_deleted, || {
            format!("delivery {delivery}: it was cancelled, though its subscription is there")
        });
        if status == Status::Failed {
            self.report.failed += u64::from(!redelivered);
            self.demand(!redelivered || is_deleted, || {
                format!("delivery {delivery}: it failed, and its redelivery as well: {item:?}")
            });
            let leaves_letter = item.reason.is_some_and(FailReason::leaves_letter);
            let has_letter = self.queues[QueueName::Letters as usize].messages.iter().any(|letter| {
                matches!(letter.body, Body::Task(task) if task.delivery == delivery
                    && task.ask == Ask::NewRound { after: round, forced: false })
            });
            let was_disabled = self.subscriptions[subscription].was_disabled;
            self.demand(item.reason != Some(FailReason::Disabled) || was_disabled, || {
                format!("delivery {delivery}: it failed, but its subscription never was disabled")
            });
            self.demand(item.reason.is_some(), || format!("delivery {delivery}: it failed without a reason"));
            // A letter of a deleted subscription's may have been replayed, in vain.
            self.demand(has_letter == leaves_letter || is_deleted, || {
                format!(
                    "delivery {delivery}: it failed, {:?}, its letter is there: {has_letter}",
                    item.reason
                )
            });
        }
        if status == Status::Delivered {
            let accepted = self.lives[delivery].accepted;
            self.demand(accepted > 0, || format!("delivery {delivery}: delivered, but never accepted"));
        }
    }

    /// Within any minute no more requests arrive than the rate allows, but for trials of an open circuit, and as far as
    /// clocks agree on what a minute is.
    fn check_rate(&mut self, subscription: usize) {
        let Some(rate) = self.subscriptions[subscription].target.rate else { return };
        let rate = usize::try_from(u32::from(rate)).unwrap();
        let mut arrived: Vec<_> = self.receivers[subscription]
            .arrived
            .iter()
            .filter(|arrival| !arrival.is_trial)
            .copied()
            .collect();
        // A queue that delivers a first task twice delivers its slot twice.
        arrived.sort_by_key(|arrival| (arrival.request, arrival.at));
        arrived.dedup_by_key(|arrival| arrival.request);
        arrived.sort_by_key(|arrival| arrival.at);
        let skew = self.faults.skew;
        let worst = arrived.windows(rate + 1).map(|window| window[rate].at - window[0].at).min();
        self.demand(worst.is_none_or(|worst| worst + skew >= MINUTE), || {
            format!("subscription {subscription}: {} requests within {worst:?} ms", rate + 1)
        });
    }
}

fn is_open(status: Status) -> bool {
    matches!(status, Status::Retrying | Status::Held)
}
