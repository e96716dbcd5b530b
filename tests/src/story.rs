//! What the scenarios of the five systems tell as they run: what each system promises, and what was seen.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Result;
use carillon_local::{Carillon, event};
use serde_json::{Value, json};

/// The story of one of the five systems.
#[derive(Clone, Copy, Debug)]
pub struct Story(&'static str);

impl Story {
    /// Of the system with this name.
    #[must_use]
    pub const fn of(system: &'static str) -> Self {
        Self(system)
    }

    /// Tells a promise of the system, and what was seen of it.
    pub fn tells(self, promise: &str, seen: impl Display) {
        let line = format!("{}: the seed promises: {promise} | seen: {seen}\n", self.0);
        // Past the test harness, which would keep it back, and in one piece, as other scenarios run beside.
        _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// A member of each of these objects, where that is a text.
#[must_use]
pub fn texts<'a>(of: &'a Value, member: &str) -> Vec<&'a str> {
    of.as_array().into_iter().flatten().filter_map(|one| one[member].as_str()).collect()
}

/// The names of a workspace's event types, of its kind's catalogue and its own.
pub async fn type_names(carillon: &Carillon, workspace: &str) -> Result<Vec<String>> {
    let path = format!("/v1/workspaces/{workspace}/event-types?limit=200");
    let listed = carillon.get(&path).await?.expect_status(200)?.json();
    Ok(texts(&listed["items"], "name").into_iter().map(str::to_owned).collect())
}

/// An event of this type, with its catalogue's sample as data.
pub async fn sample_event(carillon: &Carillon, workspace: &str, id: &str, kind: &str) -> Result<Value> {
    let path = format!("/v1/workspaces/{workspace}/event-types/{kind}");
    let sample = carillon.get(&path).await?.expect_status(200)?.json()["sample"].take();
    Ok(event(id, kind, &sample))
}

/// The same for these subscribers alone.
pub async fn sample_event_for(
    carillon: &Carillon,
    (workspace, audience): (&str, &str),
    id: &str,
    kind: &str,
) -> Result<Value> {
    let mut happened = sample_event(carillon, workspace, id, kind).await?;
    happened["audience"] = json!(audience);
    Ok(happened)
}
