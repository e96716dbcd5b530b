//! The tables' writes, with the conditions of the core's `Row`, and what the sparse index shows of them a while later.

use carillon_core::delivery::{Decision, FailReason, Row, Status};
use carillon_core::health::{Circuit, Health};
use carillon_core::rate::{RESERVED_AHEAD, Slots, room};
use carillon_core::time::UnixMillis;

use crate::rules::Rule;
use crate::sim::{Run, Undone};
use crate::world::{State, World};

/// How often slots are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slotted {
    From(u64),
    Full,
}

/// Whether a conditional write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Won,
    Lost,
}

/// A delivery's row as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) row: Row,
    pub(crate) reason: Option<FailReason>,
    /// Of the write that left it so.
    writer: u64,
    /// Its place in the sparse index, since when.
    open: Vec<(u64, Open)>,
}

/// A place in the sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Nowhere,
    Retrying(UnixMillis),
    Held,
    Failed,
}

/// What a write is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) delivery: usize,
    pub(crate) round: u32,
    pub(crate) attempt: u32,
    pub(crate) now: UnixMillis,
    pub(crate) writer: u64,
}

impl Run {
    /// Makes a conditional write under a name of its own, by which it is known again where its answer was lost.
    pub(crate) async fn claim(
        &self,
        write: Write,
        mut writing: impl FnMut(&mut World, Write) -> bool,
    ) -> Result<Claim, Undone> {
        let writer = {
            let mut world = self.world();
            world.writers += 1;
            world.writers
        };
        let (write, deadline) = (Write { writer, ..write }, self.deadline);
        self.call(|world| {
            let is_won = writing(world, write) || world.is_own(write, deadline);
            if is_won { Claim::Won } else { Claim::Lost }
        })
        .await
    }
}

impl World {
    /// Whether what stands in a write's way is that write.
    fn is_own(&self, write: Write, deadline: UnixMillis) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        let is_leased_as_long = item.row.lease_until == Some(deadline)
            && (item.row.round, item.row.attempt + 1) == (write.round, write.attempt);
        (self.keeps(Rule::WriterIsKnownAgain) && item.writer == write.writer)
            || (!self.keeps(Rule::WriterIsOneWrite) && is_leased_as_long)
    }

    pub(crate) fn record_first(&mut self, write: Write, made: bool, decision: Decision) -> bool {
        if self.rows[write.delivery].is_some() && self.keeps(Rule::FirstIsPutIfAbsent) {
            return false;
        }
        let row = Row {
            round: 1,
            attempt: u32::from(made),
            status: decision.status(),
            next_at: decision.next_at(),
            lease_until: None,
        };
        self.store(write, row, reason(decision), open(decision));
        if made {
            self.witness_record(write, decision);
        }
        true
    }

    pub(crate) fn record(&mut self, write: Write, made: bool, decision: Decision) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        let row = &item.row;
        let is_recordable = row.recordable(write.round, write.attempt)
            || (!self.keeps(Rule::RecordIsOfTheNextAttempt) && row.round == write.round)
            || (!self.keeps(Rule::RecordIsOfItsRound)
                && row.status == Status::Retrying
                && row.round != write.round);
        if !is_recordable {
            return false;
        }
        let attempt = if made { write.attempt } else { row.attempt };
        let row = Row {
            round: row.round,
            attempt,
            status: decision.status(),
            next_at: decision.next_at(),
            lease_until: None,
        };
        let reason = reason(decision).or(item.reason);
        let write = Write { round: row.round, ..write };
        self.store(write, row, reason, open(decision));
        if made {
            self.witness_record(write, decision);
        }
        true
    }

    /// The row, if a lease for this attempt can be taken.
    fn leasable(&self, write: Write) -> Option<Item> {
        let item = self.rows[write.delivery].as_ref()?;
        let row = &item.row;
        let ignores_leases = !self.keeps(Rule::LeaseExcludesOthers);
        let is_leasable = row.leasable(write.round, write.attempt, write.now)
            || (ignores_leases && row.recordable(write.round, write.attempt));
        is_leasable.then(|| item.clone())
    }

    pub(crate) fn lease(&mut self, write: Write, until: UnixMillis) -> bool {
        let Some(item) = self.leasable(write) else { return false };
        self.change_row(write, Row { lease_until: Some(until), ..item.row }, None);
        true
    }

    pub(crate) fn put_off(&mut self, write: Write, until: UnixMillis) -> bool {
        let Some(item) = self.leasable(write) else { return false };
        let lease_until = if self.keeps(Rule::PutOffTakesTheLease) { Some(until) } else { None };
        let row = Row { next_at: Some(until), lease_until, ..item.row };
        self.change_row(write, row, Some(Open::Retrying(until)));
        self.witness_put_off(write, until);
        true
    }

    pub(crate) fn start_round(&mut self, write: Write, forced: bool, until: UnixMillis) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        let (row, after) = (&item.row, write.round - 1);
        let is_renewable = row.renewable(after, forced)
            || (!self.keeps(Rule::RoundFollowsFailure) && row.round == after)
            || (!self.keeps(Rule::RoundFollowsItsOwn) && row.status == Status::Failed);
        if !is_renewable {
            return false;
        }
        let row = Row {
            round: row.round + 1,
            attempt: 0,
            status: Status::Retrying,
            next_at: Some(write.now),
            lease_until: Some(until),
        };
        self.store(write, row, None, Open::Retrying(write.now));
        self.witness_round(write, after, forced);
        true
    }

    pub(crate) fn resend(&mut self, write: Write, was: Option<UnixMillis>) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        let row = item.row.clone();
        if !row.recordable(write.round, write.attempt) || row.next_at != was {
            return false;
        }
        if self.keeps(Rule::ResendIsNotedFirst) {
            self.change_row(write, Row { next_at: Some(write.now), ..row }, Some(Open::Retrying(write.now)));
        }
        self.witness_resend(write);
        true
    }

    pub(crate) fn hold(&mut self, write: Write) -> bool {
        let recordable = |world: &Self| {
            let item = world.rows[write.delivery].as_ref()?;
            item.row.recordable(write.round, write.attempt).then(|| item.clone())
        };
        let needs_lease = self.keeps(Rule::HoldNeedsTheLease);
        let item = if needs_lease { self.leasable(write) } else { recordable(self) };
        let Some(item) = item else { return false };
        let row = Row { status: Status::Held, next_at: None, lease_until: None, ..item.row };
        self.change_row(write, row, Some(Open::Held));
        true
    }

    pub(crate) fn give_back(&mut self, write: Write) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        if !item.row.recordable(write.round, write.attempt) {
            return false;
        }
        let row = Row { lease_until: None, ..item.row.clone() };
        self.change_row(write, row, None);
        true
    }

    pub(crate) fn release(&mut self, write: Write) -> bool {
        let Some(item) = &self.rows[write.delivery] else { return false };
        let row = item.row.clone();
        if !row.releasable(write.round, write.attempt) && self.keeps(Rule::OnlyHeldIsReleased) {
            return false;
        }
        let is_due = self.keeps(Rule::ReleasedIsDue);
        let next_at = if is_due { Some(write.now) } else { None };
        let open = if is_due { Open::Retrying(write.now) } else { Open::Nowhere };
        self.change_row(write, Row { status: Status::Retrying, next_at, ..row }, Some(open));
        true
    }

    fn change_row(&mut self, write: Write, row: Row, open: Option<Open>) {
        let item = self.rows[write.delivery].as_ref();
        let reason = item.and_then(|item| item.reason);
        let stays =
            item.map_or(Open::Nowhere, |item| item.open.last().map_or(Open::Nowhere, |(_, open)| *open));
        self.store(write, row, reason, open.unwrap_or(stays));
    }

    fn store(&mut self, write: Write, row: Row, reason: Option<FailReason>, open: Open) {
        self.tell(|| format!("delivery {} is {row:?}", write.delivery));
        let now = self.now;
        let reason = reason.filter(|_| row.status == Status::Failed);
        match &mut self.rows[write.delivery] {
            Some(item) => {
                (item.row, item.reason, item.writer) = (row, reason, write.writer);
                if item.open.last().is_none_or(|(_, last)| *last != open) {
                    item.open.push((now, open));
                }
            }
            none => *none = Some(Item { row, reason, writer: write.writer, open: vec![(now, open)] }),
        }
    }

    /// The deliveries whose place in the sparse index fits, as it shows them: a moment late.
    pub(crate) fn through_index(&mut self, fits: impl Fn(usize, Open) -> bool) -> Vec<(usize, Item)> {
        let lag = self.chance.below(self.faults.lag + 1);
        let seen_at = self.now - lag;
        let all = self.rows.iter().enumerate();
        all.filter_map(|(delivery, item)| {
            let item = item.as_ref()?;
            fits(delivery, item.seen(seen_at)).then(|| (delivery, item.clone()))
        })
        .collect()
    }

    /// Writes how a receiver fares, if nobody else did since: the state then, or as it is.
    pub(crate) fn write_health(
        &mut self,
        (subscription, revision): (usize, u64),
        seen: &State,
        health: &Health,
    ) -> Result<State, State> {
        let state = &mut self.states[subscription];
        if state.health_writes != seen.health_writes && self.broken != Some(Rule::OneTrialAtATime) {
            return Err(state.clone());
        }
        state.health = health.clone();
        state.health_of = revision;
        state.health_writes += 1;
        Ok(state.clone())
    }

    /// Reserves slots behind those that are taken.
    pub(crate) fn reserve(
        &mut self,
        subscription: usize,
        count: u64,
        slots: Slots,
        (seen, now): (&State, UnixMillis),
    ) -> Slotted {
        let span = slots.spacing_micros * count;
        let (now_micros, end) = (now.0 * 1000, (now + RESERVED_AHEAD).0 * 1000);
        let is_read_now = self.keeps(Rule::SlotsAreTakenOnce);
        let state = &mut self.states[subscription];
        let next = if is_read_now { state.next_slot } else { seen.next_slot };
        let is_same_line = state.slot_spacing == Some(slots.spacing_micros);
        let from = match next.filter(|next| is_same_line && *next >= now_micros) {
            Some(next) if next > end => return Slotted::Full,
            Some(next) => next,
            None => now_micros,
        };
        state.next_slot = Some(from + span);
        state.slot_spacing = Some(slots.spacing_micros);
        Slotted::From(from)
    }
}

impl Item {
    fn seen(&self, at: u64) -> Open {
        let known = self.open.iter().rev().find(|(since, _)| *since <= at);
        known.map_or(Open::Nowhere, |(_, open)| *open)
    }
}

impl State {
    pub(crate) fn health(&self, revision: u64) -> Health {
        if self.health_of == revision { self.health.clone() } else { Health::default() }
    }

    pub(crate) fn keeps(&self, health: &Health, revision: u64) -> bool {
        self.health == *health && (self.health_of == revision || *health == Health::default())
    }

    pub(crate) fn trial_at(&self) -> Option<UnixMillis> {
        self.health.circuit.as_ref().map(|Circuit { trial_at, .. }| *trial_at)
    }

    pub(crate) fn room(&self, now: UnixMillis) -> Option<u64> {
        Some(room(self.slot_spacing?, self.next_slot?, now))
    }
}

fn reason(decision: Decision) -> Option<FailReason> {
    match decision {
        Decision::Failed(reason) => Some(reason),
        _ => None,
    }
}

fn open(decision: Decision) -> Open {
    match decision {
        Decision::Retry { next_at } => Open::Retrying(next_at),
        Decision::Failed(_) => Open::Failed,
        Decision::Held(_) => Open::Held,
        Decision::Delivered | Decision::Cancelled => Open::Nowhere,
    }
}
