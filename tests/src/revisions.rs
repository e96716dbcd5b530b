//! Revisions under faults: publishers at once, repetitions, conflicts, and deaths. Then each number is there once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use carillon_local::{Dice, Rates, Tally, event};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::Scene;
use crate::rough::{self, Weather};

/// The workspace: of a kind whose events have revisions.
const WORKSPACE: &str = "directory";

/// How many events a publisher sends at once.
const BATCHES: [usize; 4] = [1, 1, 5, 20];

/// Of so many requests one is made once more though it was accepted.
const REPEATED_ONE_OF: u64 = 8;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Revisions {
    /// What all throws come from.
    pub seed: u64,
    /// How many events are published.
    pub events: usize,
    /// By how many publishers at once.
    pub publishers: usize,
    /// How often which fault befalls a request.
    pub rates: Rates,
    /// The longest time from one death to the next.
    pub deaths_apart: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Events that were accepted, each with a revision of its own.
    pub events: usize,
    /// Requests that were repeated since they were not answered with 202.
    pub repeated: usize,
    /// Requests that were made again though they were.
    pub again: usize,
    /// Processes that were killed.
    pub killed: usize,
    /// What was injected.
    pub tally: Tally,
    /// How long it took.
    pub took: Duration,
}

impl Revisions {
    /// Goes through with it. Fails where a revision is missing, or there twice.
    pub async fn undergo(self, name: &str) -> Result<Seen> {
        let scene = Scene::set(name, &[]).await?;
        scene.carillon.own_workspace(WORKSPACE, "directory").await?;
        let weather = Weather::over(&scene, self.seed, self.rates.clone()).await?;
        let (mut seen, began) = (Seen::default(), Instant::now());
        let mut killed = 0;
        let deaths =
            rough::kill_at_random(&scene, self.dice("deaths"), &["publish"], self.deaths_apart, &mut killed);
        let published = tokio::select! {
            published = self.publish(&scene) => published?,
            error = deaths => bail!("killing came to an end: {error:?}"),
        };
        (seen.repeated, seen.again) = published;
        (seen.took, seen.killed, seen.tally) = (began.elapsed(), killed, weather.clear());
        seen.events = self.check(&scene).await?;
        scene.break_off().await?;
        Ok(seen)
    }

    fn dice(&self, name: impl fmt::Display) -> Dice {
        Dice::new(self.seed, name.to_string())
    }

    /// All events, by publishers at once; how often requests had to be repeated, and how often they were made again.
    async fn publish(&self, scene: &Scene) -> Result<(usize, usize)> {
        let share = self.events.div_ceil(self.publishers);
        let publishers = (0..self.publishers).map(async |publisher| {
            let mut dice = self.dice(format_args!("publisher {publisher}"));
            let (mut next, end) = (publisher * share, self.events.min((publisher + 1) * share));
            let (mut repeated, mut again) = (0, 0);
            while next < end {
                let until = end.min(next + dice.one_of(&BATCHES));
                let events: Vec<_> = (next..until).map(change).collect();
                repeated += rough::publish(scene, WORKSPACE, &events).await?.1;
                if dice.below(REPEATED_ONE_OF) == 0 {
                    repeated += rough::publish(scene, WORKSPACE, &events).await?.1;
                    again += 1;
                }
                next = until;
            }
            anyhow::Ok((repeated, again))
        });
        let published = try_join_all(publishers).await?;
        Ok(published.into_iter().fold((0, 0), |(a, b), (repeated, again)| (a + repeated, b + again)))
    }

    async fn check(&self, scene: &Scene) -> Result<usize> {
        let rows = scene.rows("EventsTable").await?;
        let revisions = revisions(&rows, WORKSPACE)?;
        let ids: BTreeMap<_, _> = revisions.iter().map(|(revision, id)| (id.clone(), *revision)).collect();
        let last = u64::try_from(self.events)?;
        ensure!(ids.len() == self.events, "{} events of {}", ids.len(), self.events);
        ensure!(revisions.keys().copied().eq(1..=last), "not from 1 to {last}: {:?}", revisions.keys());
        Ok(ids.len())
    }
}

/// The ids of a workspace's events by their revisions. Fails where one is there twice, or an event has none.
pub fn revisions(rows: &[Value], workspace: &str) -> Result<BTreeMap<u64, String>> {
    let mut revisions = BTreeMap::new();
    let prefix = format!("{workspace}/");
    for row in rows.iter().filter(|row| row["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with(&prefix))) {
        let event: Value =
            serde_json::from_str(row["event"]["S"].as_str().context("a row without its event")?)?;
        let revision = event["revision"].as_u64().with_context(|| format!("no revision: {event}"))?;
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        if let Some(other) = revisions.insert(revision, id) {
            bail!("{other} and {} have the revision {revision}", event["id"]);
        }
    }
    Ok(revisions)
}

/// A change in the directory.
fn change(number: usize) -> Value {
    let organisation = format!("79b34d52-125b-4e5a-8b69-{number:012}");
    let data = json!({
        "apiResource": format!("/organisations/{organisation}"),
        "updateTimestamp": "2024-12-12T17:35:57Z",
        "resourcePayload": { "organisationDetails": {
            "organisationId": organisation, "organisationName": "East Credit Union", "status": "Active",
        } },
    });
    event(&format!("change-{number}"), "organisation.updated", &data)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events have the revisions 1 to {}, each once, after {:.0} s. {} requests of publishers had to be repeated, {} were \
             made again though they had been accepted.",
            self.events,
            self.events,
            self.took.as_secs_f64(),
            self.repeated,
            self.again
        )?;
        write!(f, "AWS: {}. {} processes were killed.", self.tally, self.killed)
    }
}
