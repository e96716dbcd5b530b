//! Jobs: work that is too long for an answer, done in steps, each of which may be done twice.
//!
//! A job that sends deliveries again writes no rows: it sends tasks, and what a task may do is decided where it is worked
//! off, by the row as it is then ([`crate::delivery`]). So a page of tasks that is sent twice begins each round once.

use serde::{Deserialize, Serialize};

use crate::delivery::{Ask, Status};
use crate::id::{DeliveryId, EventDigest, JobId, SubscriberId, SubscriptionId, WorkspaceId};
use crate::matching::CLOCK_SKEW;
use crate::pattern::{EventType, TypePattern};
use crate::time::UnixMillis;

/// The version of the job queue's messages that this release writes.
pub const VERSION: u32 = 1;

/// The most deliveries that a redelivery names one by one.
pub const DELIVERIES_MAX: usize = 100;

/// Work on a workspace, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// On what.
    pub workspace: WorkspaceId,
    /// Whose subscription it is about, if it is about one.
    pub subscriber: Option<SubscriberId>,
    /// What is to be done.
    pub kind: JobKind,
    /// How far it is.
    pub status: JobStatus,
    /// How many things are done: of a deletion, the subscriptions that are gone; of all others, the tasks that were sent.
    pub done: u64,
    /// How many deliveries or events were looked at for that.
    pub looked: u64,
    /// Where to go on; at the beginning if absent.
    pub cursor: Option<Cursor>,
    /// Grows by one with each change, so that of two workers of one job one goes on.
    pub revision: u64,
    /// When it was asked for.
    pub created_at: UnixMillis,
    /// When it last went on.
    pub updated_at: UnixMillis,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobKind {
    /// Takes a workspace apart, with all that belongs to it.
    DeleteWorkspace,
    /// Begins new rounds of a subscription's deliveries.
    Redeliver(Redelivery),
    /// Sends a subscription what it never got.
    Replay(Replay),
    /// Fans events out again.
    FanOut(Span),
}

/// Which deliveries of a subscription are sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redelivery {
    /// Whose.
    pub subscription: SubscriptionId,
    /// How they have ended.
    pub ended: Ended,
    /// Which of those.
    pub which: Which,
}

/// How deliveries have ended that are sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// They failed.
    #[default]
    Failed,
    /// A receiver accepted them.
    Delivered,
    /// Either way.
    Both,
}

/// Which of a subscription's deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Which {
    /// These, [`DELIVERIES_MAX`] at most.
    These(Vec<DeliveryId>),
    /// All of these events.
    Of {
        /// Accepted then or later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<UnixMillis>,
        /// Accepted before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<UnixMillis>,
        /// Of types that one of these matches; of any type if there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        types: Vec<TypePattern>,
    },
}

/// The events that a subscription is to get as far as it never got them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Whose they are.
    pub subscription: SubscriptionId,
    /// When they were accepted.
    pub span: Span,
}

/// A part of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its first moment.
    pub since: UnixMillis,
    /// The first moment behind it.
    pub until: UnixMillis,
}

/// Where a job goes on: behind this event, or its delivery, in the order in which events were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// When it was accepted.
    pub accepted_at: UnixMillis,
    /// Which it is.
    pub event: EventDigest,
}

/// What a job reads of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Where it stands.
    pub status: Status,
    /// In which round.
    pub round: u32,
    /// Of which type its event is.
    pub event_type: &'a EventType,
    /// When the latest attempt began, if one was made.
    pub attempted_at: Option<UnixMillis>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobStatus {
    /// Asked for.
    Queued,
    /// Begun.
    Running,
    /// Done.
    Completed,
    /// Ended before it was done.
    Cancelled,
}

/// A message of the job queue: work on this job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTask {
    /// [`VERSION`]
    v: u32,
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Which job.
    pub job: JobId,
}

/// Why a text is no task.
#[derive(Debug, thiserror::Error)]
pub enum JobTaskError {
    /// No JSON, or not of the task's shape.
    #[error("the task does not have the shape of its version: {0}")]
    Shape(#[from] serde_json::Error),
    /// Written by a release that this one does not know.
    #[error("the task has version {0}, this release reads {VERSION}")]
    Version(u32),
}

impl Job {
    /// One that is asked for at this moment.
    #[must_use]
    pub fn new(
        id: JobId,
        (workspace, subscriber): (WorkspaceId, Option<SubscriberId>),
        kind: JobKind,
        now: UnixMillis,
    ) -> Self {
        Self {
            id,
            workspace,
            subscriber,
            kind,
            status: JobStatus::Queued,
            done: 0,
            looked: 0,
            cursor: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// The same ended before it is done.
    #[must_use]
    pub fn cancelled(self, now: UnixMillis) -> Self {
        Self { status: JobStatus::Cancelled, revision: self.revision + 1, updated_at: now, ..self }
    }
}

impl JobKind {
    /// Its name, as in answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::DeleteWorkspace => "deleteWorkspace",
            Self::Redeliver(_) => "redeliver",
            Self::Replay(_) => "replay",
            Self::FanOut(_) => "fanOut",
        }
    }

    /// The one subscription that it is about, if it is.
    #[must_use]
    pub fn subscription(&self) -> Option<SubscriptionId> {
        match self {
            Self::Redeliver(redelivery) => Some(redelivery.subscription),
            Self::Replay(replay) => Some(replay.subscription),
            Self::DeleteWorkspace | Self::FanOut(_) => None,
        }
    }

    /// Whether it can be ended before it is done: a workspace that is half deleted is of no use to anybody.
    #[must_use]
    pub fn can_be_cancelled(&self) -> bool {
        *self != Self::DeleteWorkspace
    }
}

impl JobStatus {
    /// Whether there is something left to do.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

impl Redelivery {
    /// What asks for a delivery again, if it is one of those that were meant when the job was asked for.
    #[must_use]
    pub fn ask(&self, found: &Found<'_>, asked_at: UnixMillis) -> Option<Ask> {
        let is_meant = match &self.which {
            Which::These(_) => true,
            Which::Of { types, .. } => {
                types.is_empty() || types.iter().any(|pattern| pattern.matches(found.event_type))
            }
        };
        let forced = match (found.status, self.ended) {
            (Status::Failed, Ended::Failed | Ended::Both) => false,
            (Status::Delivered, Ended::Delivered | Ended::Both) => true,
            _ => return None,
        };
        (is_meant && found.has_rested(asked_at)).then_some(Ask::NewRound { after: found.round, forced })
    }
}

impl Replay {
    /// What asks for an event's delivery if the subscription never got it. `found`: its delivery, if there is one.
    #[must_use]
    pub fn ask(found: Option<&Found<'_>>, asked_at: UnixMillis) -> Option<Ask> {
        match found {
            None => Some(Ask::Attempt { round: 1, attempt: 1 }),
            Some(found) if found.status == Status::Failed && found.has_rested(asked_at) => {
                Some(Ask::NewRound { after: found.round, forced: false })
            }
            Some(_) => None,
        }
    }
}

impl Found<'_> {
    /// Whether nothing was attempted since then. What was is not meant: it may even be this job's own doing, if a page of
    /// it is done for the second time.
    fn has_rested(&self, asked_at: UnixMillis) -> bool {
        self.attempted_at.is_none_or(|at| at < asked_at + CLOCK_SKEW)
    }
}

impl JobTask {
    /// The task of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { v: VERSION, workspace: job.workspace.clone(), job: job.id }
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String, JobTaskError> {
        Ok(serde_json::to_string(self)?)
    }

    /// From JSON.
    pub fn from_json(text: &str) -> Result<Self, JobTaskError> {
        let task: Self = serde_json::from_str(text)?;
        if task.v == VERSION { Ok(task) } else { Err(JobTaskError::Version(task.v)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ASKED_AT: UnixMillis = UnixMillis(1_795_339_800_000);

    fn subscription() -> SubscriptionId {
        SubscriptionId::new(UnixMillis(1), [0; 10])
    }

    fn redelivery(ended: Ended, types: &[&str]) -> Redelivery {
        let types = types.iter().map(|text| text.parse().unwrap()).collect();
        Redelivery {
            subscription: subscription(),
            ended,
            which: Which::Of { since: None, until: None, types },
        }
    }

    #[test]
    fn what_is_sent_again() {
        let event_type: EventType = "consent:approved".parse().unwrap();
        let found =
            |status| Found { status, round: 3, event_type: &event_type, attempted_at: Some(UnixMillis(7)) };
        let anew = |forced| Some(Ask::NewRound { after: 3, forced });
        for (status, failed, delivered, both) in [
            (Status::Failed, anew(false), None, anew(false)),
            (Status::Delivered, None, anew(true), anew(true)),
            (Status::Retrying, None, None, None),
            (Status::Held, None, None, None),
            (Status::Cancelled, None, None, None),
        ] {
            for (ended, expected) in
                [(Ended::Failed, failed), (Ended::Delivered, delivered), (Ended::Both, both)]
            {
                assert_eq!(
                    redelivery(ended, &[]).ask(&found(status), ASKED_AT),
                    expected,
                    "{status:?} {ended:?}"
                );
            }
        }
        let of = |types: &[&str]| redelivery(Ended::Failed, types).ask(&found(Status::Failed), ASKED_AT);
        assert_eq!(of(&["invoice.*", "consent:*"]), anew(false));
        assert_eq!(of(&["invoice.*"]), None);
    }

    #[test]
    fn what_was_attempted_since_is_left_alone() {
        let event_type: EventType = "t".parse().unwrap();
        let all = redelivery(Ended::Both, &[]);
        let asks = |status, attempted_at| {
            let found = Found { status, round: 1, event_type: &event_type, attempted_at };
            (all.ask(&found, ASKED_AT).is_some(), Replay::ask(Some(&found), ASKED_AT).is_some())
        };
        let (before, after) = (ASKED_AT.minus(Duration::from_secs(1)), ASKED_AT + Duration::from_secs(1));
        assert_eq!(asks(Status::Failed, Some(before)), (true, true));
        assert_eq!(asks(Status::Failed, Some(after)), (false, false));
        assert_eq!(asks(Status::Failed, None), (true, true), "as its subscription was disabled");
        assert_eq!(asks(Status::Delivered, Some(before)), (true, false));
        assert_eq!(asks(Status::Delivered, Some(after)), (false, false));
        assert_eq!(Replay::ask(None, ASKED_AT), Some(Ask::Attempt { round: 1, attempt: 1 }));
    }

    #[test]
    fn kinds_come_back_as_they_were_written() {
        let span = Span { since: UnixMillis(1), until: UnixMillis(2) };
        let delivery = "dlv_00000000000000000000000000000000".parse().unwrap();
        let which = Which::These(vec![delivery]);
        for kind in [
            JobKind::DeleteWorkspace,
            JobKind::Redeliver(redelivery(Ended::Both, &["a.*"])),
            JobKind::Redeliver(Redelivery { subscription: subscription(), ended: Ended::Failed, which }),
            JobKind::Replay(Replay { subscription: subscription(), span }),
            JobKind::FanOut(span),
        ] {
            let json = serde_json::to_value(&kind).unwrap();
            assert!(
                json.as_str().is_some_and(|name| name == kind.name()) || json[kind.name()].is_object(),
                "{json}"
            );
            assert_eq!(serde_json::from_value::<JobKind>(json).unwrap(), kind);
        }
    }
}
