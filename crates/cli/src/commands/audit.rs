//! `carillon audit`

use jiff::Timestamp;
use serde::Deserialize;

use crate::api::Call;
use crate::arguments::Audit;
use crate::context::Place;
use crate::failure::Failure;
use crate::listing::{Row, list};
use crate::moment::ago;
use crate::table::{Cell, Tone};

/// Shows who changed what, the latest first.
pub(crate) async fn audit(place: &Place, said: Audit) -> Result<(), Failure> {
    let call = said.times.narrow(Call::get(&place.at(&["audit"])));
    list::<Change>(&place.api, place.output, &call, &said.paging, "changes that are told").await
}

/// What is shown of a change.
#[derive(Deserialize)]
struct Change {
    at: String,
    by: Option<String>,
    client: Option<String>,
    action: String,
    target: String,
    #[serde(default)]
    changes: Vec<String>,
}

impl Row for Change {
    const HEADINGS: &'static [&'static str] = &["AT", "BY", "ACTION", "TARGET", "CHANGES"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        // A client, or whoever else it was.
        let by = self.client.clone().or_else(|| self.by.clone());
        vec![
            Cell::toned(ago(&self.at, now), Tone::Quiet),
            by.unwrap_or_default().into(),
            self.action.as_str().into(),
            self.target.as_str().into(),
            self.changes.join(",").into(),
        ]
    }
}
