//! Lists, page by page.

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::{Api, Call, parsed};
use crate::clock::now;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::output::Output;
use crate::table::{Cell, Table};

/// How many things are shown if nobody says.
const SHOWN_DEFAULT: u32 = 30;

/// How many things are asked for at once at most.
const PAGE_MAX: u32 = 100;

/// Which part of a list.
#[derive(Args, Clone, Debug)]
pub(crate) struct Paging {
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = SHOWN_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Where to begin: what an earlier list ended with
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Follow the pages to the end of the list
    #[arg(long, visible_alias = "all", conflicts_with = "limit")]
    pub(crate) follow: bool,
}

/// Between which times.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From then on: `2h` (ago), `7d`, `2026-11-20`, `2026-11-20T13:06:51Z`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Until then, likewise
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

impl Times {
    /// As the API takes them.
    pub(crate) fn since_and_until(self) -> (Option<String>, Option<String>) {
        let now = now();
        (self.since.map(|since| since.rfc3339(now)), self.until.map(|until| until.rfc3339(now)))
    }

    /// A list of what lies between them.
    pub(crate) fn narrow(self, call: Call) -> Call {
        let (since, until) = self.since_and_until();
        call.with_some("since", since).with_some("until", until)
    }
}

/// An item as a row of a table.
pub(crate) trait Row: DeserializeOwned {
    /// What the columns are.
    const HEADINGS: &'static [&'static str];

    /// The fields, one for each column.
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// A page of a list.
#[derive(Deserialize)]
pub(crate) struct Page {
    /// What is on it.
    #[serde(default)]
    pub(crate) items: Vec<Box<RawValue>>,
    /// The cursor of the page that follows.
    pub(crate) next: Option<String>,
}

/// Shows a list: rows of a table, or an item a line. `what` names the items where there are none.
pub(crate) async fn list<R: Row>(
    api: &Api,
    output: Output,
    call: &Call,
    paging: &Paging,
    what: &str,
) -> Result<(), Failure> {
    let mut table = Table::new(R::HEADINGS);
    let mut left = if paging.follow { u32::MAX } else { paging.limit };
    let mut shown = 0_usize;
    let mut cursor = paging.cursor.clone();
    loop {
        let asked = call.clone().with("limit", left.min(PAGE_MAX).to_string());
        let page = api.parsed::<Page>(&asked.with_some("cursor", cursor.take())).await?;
        print::<R>(output, &mut table, &page.items)?;
        shown += page.items.len();
        if !paging.follow {
            // A page is never longer than what was asked for.
            left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        }
        // A page may be shorter than asked for, even empty, though there are more.
        cursor = page.next;
        if cursor.is_none() || left == 0 {
            break;
        }
    }
    if output.is_json() {
        return Ok(());
    }
    match cursor {
        Some(cursor) => {
            output.note(&format!("There are more: --follow shows all, --cursor {cursor} the next."));
        }
        None if shown == 0 => output.note(&format!("There are no {what}.")),
        None => {}
    }
    Ok(())
}

/// Shows a list whole that is short, and so has no limit to be asked with.
pub(crate) async fn list_all<R: Row>(
    api: &Api,
    output: Output,
    call: &Call,
    what: &str,
) -> Result<(), Failure> {
    let page = api.parsed::<Page>(call).await?;
    if page.items.is_empty() && !output.is_json() {
        output.note(&format!("There are no {what}."));
    }
    print::<R>(output, &mut Table::new(R::HEADINGS), &page.items)
}

/// Shows items, as the next rows of a table or one a line.
pub(crate) fn print<R: Row>(
    output: Output,
    table: &mut Table,
    items: &[Box<RawValue>],
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json_lines(items);
    }
    let now = now();
    let row = |item: &RawValue| Ok(parsed::<R>(item.get().as_bytes())?.cells(now));
    output.rows(table, &items.iter().map(|item| row(item)).collect::<Result<Vec<_>, Failure>>()?)
}
