//! `carillon clients`

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::api::Call;
use crate::context::{Place, View, done};
use crate::failure::Failure;
use crate::listing::{Paging, Row, list};
use crate::moment::{ago, full};
use crate::table::{Cell, Members, Tone};

/// What there is to do with grants.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientsCommand {
    /// List who has a role in the workspace
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Give a client a role
    #[command(after_help = "Examples:
  carillon clients grant 2v9k1ofb7tq0c4m8s6h3n5d1e7 owner
  carillon clients grant portal subscriber --subscriber tpp-1")]
    Grant {
        /// The client, as the issuer of its tokens names it
        client: String,
        /// owner, publisher, support or subscriber
        role: String,
        /// Which subscriber it is, if that is its role
        #[arg(long, value_name = "ID", required_if_eq("role", "subscriber"))]
        subscriber: Option<String>,
    },
    /// Take a client's role away
    Revoke {
        /// The client
        client: String,
    },
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: ClientsCommand) -> Result<(), Failure> {
    let Place { api, output, .. } = place;
    match command {
        ClientsCommand::List { paging } => {
            list::<Grant>(api, *output, &Call::get(&place.at(&["clients"])), &paging, "clients").await
        }
        ClientsCommand::Grant { client, role, subscriber } => {
            let mut body = json!({ "role": role });
            if let Some(subscriber) = subscriber {
                body["subscriber"] = json!(subscriber);
            }
            place.show::<Grant>(&Call::put(&place.at(&["clients", &client]), &body)).await
        }
        ClientsCommand::Revoke { client } => {
            let answer = api.call(&Call::delete(&place.at(&["clients", &client]))).await?;
            done(*output, &answer, &format!("{client} has no role in {} any more.", place.workspace))
        }
    }
}

/// What is shown of a grant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    client: String,
    role: String,
    subscriber: Option<String>,
    created_at: String,
}

impl View for Grant {
    fn members(&self, now: Timestamp) -> Members {
        Members::default()
            .with("client", self.client.as_str())
            .with("role", self.role.as_str())
            .with_some("subscriber", self.subscriber.as_deref())
            .with("since", full(&self.created_at, now))
    }
}

impl Row for Grant {
    const HEADINGS: &'static [&'static str] = &["CLIENT", "ROLE", "SUBSCRIBER", "SINCE"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.client.as_str().into(),
            self.role.as_str().into(),
            self.subscriber.clone().unwrap_or_default().into(),
            Cell::toned(ago(&self.created_at, now), Tone::Quiet),
        ]
    }
}
