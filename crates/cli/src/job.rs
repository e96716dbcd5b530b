//! Jobs: work that outlasts the request that asked for it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::sleep;

use crate::api::{Call, parsed};
use crate::context::{Place, View, show};
use crate::failure::Failure;
use crate::listing::Row;
use crate::moment::{ago, full};
use crate::table::{Cell, Members};

/// How often a job is looked at that somebody waits for.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What is shown of a job.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    id: String,
    kind: String,
    status: String,
    #[serde(default)]
    done: u64,
    looked: Option<u64>,
    subscription: Option<String>,
    created_at: String,
    updated_at: String,
}

impl Job {
    fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "queued" | "running")
    }
}

impl View for Job {
    fn members(&self, now: Timestamp) -> Members {
        Members::default()
            .with("id", self.id.as_str())
            .with("kind", self.kind.as_str())
            .with("status", Cell::word(self.status.as_str()))
            .with("done", self.done.to_string())
            .with_some("looked at", self.looked.map(|looked| looked.to_string()))
            .with_some("subscription", self.subscription.as_deref())
            .with("created", full(&self.created_at, now))
            .with("updated", full(&self.updated_at, now))
    }
}

impl Row for Job {
    const HEADINGS: &'static [&'static str] = &["JOB", "KIND", "STATUS", "DONE", "SUBSCRIPTION", "UPDATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.kind.as_str().into(),
            Cell::word(self.status.as_str()),
            self.done.to_string().into(),
            self.subscription.clone().unwrap_or_default().into(),
            ago(&self.updated_at, now).into(),
        ]
    }
}

/// Shows a job that was just asked for, at its end if somebody waits for it.
pub(crate) async fn shown(
    place: &Place,
    answer: Bytes,
    wait: bool,
    total: Option<u64>,
) -> Result<(), Failure> {
    let output = place.output;
    if wait {
        return waited(place, parsed::<Job>(&answer)?, total).await;
    }
    show::<Job>(output, &answer)?;
    if !output.is_json() {
        let job = parsed::<Job>(&answer)?;
        output.note(&format!(
            "`carillon jobs wait {0}` shows how far it is, `jobs cancel {0}` ends it.",
            job.id
        ));
    }
    Ok(())
}

/// Waits for the end of a job, shows how far it is meanwhile, and what it came to. One that was cancelled ended badly.
pub(crate) async fn waited(place: &Place, job: Job, total: Option<u64>) -> Result<(), Failure> {
    let Place { api, output, .. } = place;
    if !output.is_json() {
        output.note(&format!("Waiting for {}. Ctrl-C ends the waiting, not the job.", job.id));
    }
    let bar = output.progress(&job.kind, total);
    let call = Call::get(&place.at(&["jobs", &job.id]));
    let (answer, job) = loop {
        let answer = api.call(&call).await?;
        let job = parsed::<Job>(&answer)?;
        // What was counted may have grown since.
        if bar.length().is_some_and(|length| length < job.done) {
            bar.set_length(job.done);
        }
        bar.set_position(job.done);
        if job.has_ended() {
            break (answer, job);
        }
        sleep(LOOK_PERIOD).await;
    };
    bar.finish_and_clear();
    show::<Job>(*output, &answer)?;
    if job.status == "completed" {
        return Ok(());
    }
    Err(Failure::EndedBadly(format!("{} is {}", job.id, job.status)))
}
