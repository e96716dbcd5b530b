//! Publishing: each event is checked by what its workspace says, then accepted.

use std::collections::{HashMap, HashSet};

use carillon_aws::accepting::{Acceptor, Incoming};
use carillon_aws::config::ConfigTable;
use carillon_aws::environment::{SettingError, setting};
use carillon_aws::error::AwsError;
use carillon_aws::events::Acceptance;
use carillon_aws::metrics::{Counter, Metrics};
use carillon_aws::{DynamoDb, now, sdk_config};
use carillon_core::event::Event;
use carillon_core::id::EventDigest;
use carillon_core::pattern::EventType;
use carillon_http::problem::Problem;
use futures::stream::{self, StreamExt as _};

use crate::answer::Submitted;
use crate::check::{Mode, check};
use crate::types::{Rule, Types};
use crate::workspace::{OpenWorkspace, Workspaces};

/// How many calls for a batch are under way at once.
const CALLS_AT_ONCE: usize = 25;

/// The tables and settings that accepting needs, and what was read of them a moment ago.
pub struct Publisher {
    config: ConfigTable,
    acceptor: Acceptor,
    workspaces: Workspaces,
    types: Types,
    pub(crate) metrics: Metrics,
}

impl Publisher {
    /// From the settings of the environment.
    pub async fn from_environment() -> Result<Self, SettingError> {
        let dynamodb = DynamoDb::new(&sdk_config().await);
        Ok(Self {
            acceptor: Acceptor::from_environment(&dynamodb)?,
            config: ConfigTable::new(dynamodb, setting("CONFIG_TABLE")?),
            workspaces: Workspaces::new(),
            types: Types::new(),
            metrics: Metrics::from_environment()?,
        })
    }

    /// The config table, where the grants are.
    #[must_use]
    pub fn config(&self) -> &ConfigTable {
        &self.config
    }

    /// The workspace of a path, if there is one and it takes events.
    pub(crate) async fn workspace(&self, path: &str) -> Result<OpenWorkspace, Problem> {
        self.workspaces.find(&self.config, path).await
    }

    /// Checks one event by what the workspace asks, and accepts it.
    pub(crate) async fn accept(&self, workspace: &OpenWorkspace, event: Event, mode: Mode) -> Submitted {
        let rule = self.rule(workspace, event.event_type()).await;
        match checked(event, mode, workspace, &rule) {
            Ok(incoming) => self.take(workspace, vec![incoming]).await.pop().unwrap_or(FAILED),
            Err(problem) => Submitted::Refused(problem),
        }
    }

    /// The same for the events of a batch, several at once; how it went for each, in their order. Those whose identity
    /// stands in the batch before wait for the others, so that the first one decides, as if they had come one by one.
    pub(crate) async fn accept_all(&self, workspace: &OpenWorkspace, events: Vec<Event>) -> Vec<Submitted> {
        let rules = self.rules(workspace, &events).await;
        let mut submitted = Vec::with_capacity(events.len());
        let (mut places, mut first) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        let mut later = Vec::new();
        let mut identities = HashSet::with_capacity(events.len());
        for (place, event) in events.into_iter().enumerate() {
            let rule = rules.get(event.event_type()).unwrap_or(&Err(Problem::Unavailable));
            match checked(event, Mode::Structured, workspace, rule) {
                Err(problem) => submitted.push((place, Submitted::Refused(problem))),
                Ok(incoming)
                    if identities.insert(EventDigest::of(incoming.event.source(), incoming.event.id())) =>
                {
                    places.push(place);
                    first.push(incoming);
                }
                Ok(incoming) => later.push((place, incoming)),
            }
        }
        submitted.extend(places.into_iter().zip(self.take(workspace, first).await));
        for (place, incoming) in later {
            submitted.extend(self.take(workspace, vec![incoming]).await.into_iter().map(|one| (place, one)));
        }
        submitted.sort_unstable_by_key(|(place, _)| *place);
        submitted.into_iter().map(|(_, submitted)| submitted).collect()
    }

    /// Accepts events, each of its own identity; how it went for each, in their order.
    async fn take(&self, workspace: &OpenWorkspace, incoming: Vec<Incoming>) -> Vec<Submitted> {
        let accepted = self.acceptor.accept(&workspace.tenant, incoming).await;
        let submitted = accepted.into_iter().map(|accepted| match accepted {
            Ok(Acceptance::Accepted { at }) => Submitted::Accepted { accepted_at: at },
            Ok(Acceptance::Duplicate { accepted_at }) => Submitted::Duplicate { accepted_at },
            Ok(Acceptance::Conflict) => Submitted::Refused(Problem::EventConflict),
            Err(error) => Submitted::Refused(AwsError::into(error)),
        });
        let submitted: Vec<_> = submitted.collect();
        let count = |wanted: fn(&Submitted) -> bool| submitted.iter().filter(|one| wanted(one)).count();
        let accepted = count(|one| matches!(one, Submitted::Accepted { .. }));
        let duplicates = count(|one| matches!(one, Submitted::Duplicate { .. }));
        self.metrics.count(Counter::EventsAccepted, accepted);
        self.metrics.count(Counter::EventsDuplicate, duplicates);
        submitted
    }

    /// The rules of a batch's types, each found once.
    async fn rules(&self, workspace: &OpenWorkspace, events: &[Event]) -> HashMap<EventType, Found> {
        let names: HashSet<_> = events.iter().map(|event| event.event_type().clone()).collect();
        let find = async |name| {
            let rule = self.rule(workspace, &name).await;
            (name, rule)
        };
        stream::iter(names).map(find).buffer_unordered(CALLS_AT_ONCE).collect().await
    }

    async fn rule(&self, workspace: &OpenWorkspace, name: &EventType) -> Found {
        Ok(self.types.rule(&self.config, workspace, name).await?)
    }
}

/// The rule of a type, if the workspace has it; an error if that cannot be found out at the moment.
type Found = Result<Option<Rule>, Problem>;

/// What is answered of an event that got no answer.
const FAILED: Submitted = Submitted::Refused(Problem::Unavailable);

fn checked(event: Event, mode: Mode, workspace: &OpenWorkspace, rule: &Found) -> Result<Incoming, Problem> {
    let rule = rule.as_ref().map_err(Clone::clone)?;
    let effects = check(&event, mode, (workspace.audience, &workspace.rules), rule.as_deref(), now())?;
    Ok(Incoming { event, effects })
}
