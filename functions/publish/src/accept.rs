//! Accepting: the event is put unless one of its identity is kept; the first put decides.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use carillon_aws::config::ConfigTable;
use carillon_aws::environment::{SettingError, setting};
use carillon_aws::error::AwsError;
use carillon_aws::events::{Acceptance, EventTable};
use carillon_aws::{DynamoDb, now, sdk_config};
use carillon_core::event::Event;
use carillon_core::id::{EventDigest, WorkspaceId};
use carillon_core::time::UnixMillis;
use carillon_http::problem::Problem;
use futures::stream::{self, StreamExt as _};

const DAY: Duration = Duration::from_hours(24);

/// How long a workspace that was seen is taken to be there.
const WORKSPACE_KEPT: Duration = Duration::from_secs(4);

/// How many puts of a batch are under way at once.
const PUTS_AT_ONCE: usize = 25;

/// The tables and settings that accepting needs.
pub(crate) struct Publisher {
    config: ConfigTable,
    events: EventTable,
    retention: Duration,
    seen: Mutex<HashMap<WorkspaceId, UnixMillis>>,
}

/// How the submission of one event went.
#[derive(Clone, Debug)]
pub(crate) enum Submitted {
    /// It is an event now.
    Accepted { accepted_at: UnixMillis },
    /// It was one before.
    Duplicate { accepted_at: UnixMillis },
    /// It is none.
    Refused(Problem),
}

impl Submitted {
    /// Why it is no event, if it is none.
    pub(crate) fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Accepted { .. } | Self::Duplicate { .. } => None,
        }
    }
}

impl Publisher {
    pub(crate) async fn from_environment() -> Result<Self, SettingError> {
        let dynamodb = DynamoDb::new(&sdk_config().await);
        Ok(Self {
            config: ConfigTable::new(dynamodb.clone(), setting("CONFIG_TABLE")?),
            events: EventTable::new(dynamodb, setting("EVENTS_TABLE")?),
            retention: DAY * setting("RETENTION_DAYS")?,
            seen: Mutex::default(),
        })
    }

    /// The workspace of a path, if there is one.
    pub(crate) async fn workspace(&self, path: &str) -> Result<WorkspaceId, Problem> {
        let workspace: WorkspaceId = path.parse().map_err(|_| Problem::NotFound)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.retain(|_, at| now().since(*at) < WORKSPACE_KEPT);
            if seen.contains_key(&workspace) {
                return Ok(workspace);
            }
        }
        if !self.config.workspace_exists(&workspace).await? {
            return Err(Problem::NotFound);
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace.clone(), now());
        Ok(workspace)
    }

    /// Accepts one event.
    pub(crate) async fn accept(&self, workspace: &WorkspaceId, event: Event) -> Submitted {
        let now = now();
        match self.events.accept(event, workspace.clone(), now, self.retention).await {
            Ok(Acceptance::Accepted) => Submitted::Accepted { accepted_at: now },
            Ok(Acceptance::Duplicate { accepted_at }) => Submitted::Duplicate { accepted_at },
            Ok(Acceptance::Conflict) => Submitted::Refused(Problem::EventConflict),
            Err(error) => Submitted::Refused(AwsError::into(error)),
        }
    }

    /// Accepts the events of a batch, several at once; how it went for each, in their order. Those whose identity stands
    /// in the batch before wait for the others, so that the first one decides, as if they had come one by one.
    pub(crate) async fn accept_all(&self, workspace: &WorkspaceId, events: Vec<Event>) -> Vec<Submitted> {
        let mut identities = HashSet::with_capacity(events.len());
        let mut is_first = |event: &Event| identities.insert(EventDigest::of(event.source(), event.id()));
        let numbered = events.into_iter().enumerate();
        let (first, later): (Vec<_>, Vec<_>) = numbered.partition(|(_, event)| is_first(event));
        let accept = async |(place, event)| (place, self.accept(workspace, event).await);
        let mut submitted: Vec<_> =
            stream::iter(first).map(accept).buffer_unordered(PUTS_AT_ONCE).collect().await;
        for event in later {
            submitted.push(accept(event).await);
        }
        submitted.sort_unstable_by_key(|(place, _)| *place);
        submitted.into_iter().map(|(_, submitted)| submitted).collect()
    }
}
