//! `carillon jobs`

use clap::Subcommand;

use crate::api::Call;
use crate::context::Place;
use crate::failure::Failure;
use crate::job::{Job, waited};
use crate::listing::{Paging, list};

/// What there is to do with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List them
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Wait for the end of one, and show how far it is meanwhile
    Wait {
        /// Its id
        id: String,
    },
    /// Cancel one: what it has done stays done
    Cancel {
        /// Its id
        id: String,
    },
}

/// Does one of them.
pub(crate) async fn run(place: &Place, command: JobsCommand) -> Result<(), Failure> {
    let one = |id: &str| Call::get(&place.at(&["jobs", id]));
    match command {
        JobsCommand::List { paging } => {
            list::<Job>(&place.api, place.output, &Call::get(&place.at(&["jobs"])), &paging, "jobs").await
        }
        JobsCommand::Show { id } => place.show::<Job>(&one(&id)).await,
        JobsCommand::Wait { id } => {
            let job = place.api.parsed::<Job>(&one(&id)).await?;
            waited(place, job, None).await
        }
        JobsCommand::Cancel { id } => {
            let path = place.at(&["jobs", &id, "cancel"]);
            place.show::<Job>(&Call::post_as(&path, "application/json", String::new())).await
        }
    }
}
