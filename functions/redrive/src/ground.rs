//! What jobs are done on.

use std::time::Duration;

use carillon_aws::config::ConfigTable;
use carillon_aws::deliveries::DeliveryTable;
use carillon_aws::environment::setting;
use carillon_aws::error::AwsError;
use carillon_aws::events::EventTable;
use carillon_aws::queue::{Message, Queue};
use carillon_aws::redelivery::{Page, Pages};
use carillon_aws::{DynamoDb, Sqs, now, sdk_config};
use carillon_core::id::{JobId, SubscriptionId, WorkspaceId};
use carillon_core::job::{Job, JobTask, JobTaskError, Redelivery, Replay, Span};
use carillon_core::subscription::Subscription;
use carillon_core::task::{DeliveryTask, EventRef, ExpansionTask, TaskError};
use carillon_core::workspace::WorkspaceStatus;
use carillon_filter::Matcher;

/// What steps need, of tables and queues.
pub(crate) trait Ground {
    /// A job, if it is still known.
    async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError>;
    /// Writes how far a job is. `false`: somebody else has changed it.
    async fn put_job(&self, job: &Job) -> Result<bool, AwsError>;
    /// Whether a workspace is there and to be deleted.
    async fn is_closed(&self, workspace: &WorkspaceId) -> Result<bool, AwsError>;
    /// Whether a workspace is there and in use.
    async fn is_open(&self, workspace: &WorkspaceId) -> Result<bool, AwsError>;
    /// A step of taking it apart: how many subscriptions went; `None` when nothing is left.
    async fn take_apart(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError>;
    /// A subscription, as it is now.
    async fn subscription(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
    ) -> Result<Option<Subscription>, AwsError>;
    /// The page of deliveries at which a job is.
    async fn redelivery_page(&self, job: &Job, wanted: &Redelivery) -> Result<Page<DeliveryTask>, AwsError>;
    /// The same of events that a subscription never got.
    async fn replay_page(
        &self,
        job: &Job,
        wanted: &Replay,
        matcher: &Matcher,
    ) -> Result<Page<DeliveryTask>, AwsError>;
    /// The same of events.
    async fn events_page(&self, job: &Job, span: Span) -> Result<Page<EventRef>, AwsError>;
    /// Sends tasks to `deliver`, all of them or none for sure.
    async fn deliver(&self, tasks: Vec<DeliveryTask>) -> Result<(), NotDone>;
    /// Sends tasks to `fanout`, all of them or none for sure.
    async fn expand(&self, tasks: Vec<ExpansionTask>) -> Result<(), NotDone>;
    /// Sends a job on.
    async fn send(&self, task: &JobTask) -> Result<(), NotDone>;
    /// How many tasks of a job are sent in a second at most, so that what is live goes first.
    fn tasks_per_second(&self) -> u32;
    /// Waits.
    async fn pause(&self, time: Duration);
}

/// Why a task must come again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    /// AWS did not do what it was asked for.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The job's task cannot be written.
    #[error(transparent)]
    JobTask(#[from] JobTaskError),
    /// A task that it sends cannot be written.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// The stack's tables and queues.
pub(crate) struct Stack {
    config: ConfigTable,
    pages: Pages,
    jobs: Queue,
    delivery: Queue,
    expansion: Queue,
    tasks_per_second: u32,
}

impl Stack {
    pub(crate) async fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let sdk = sdk_config().await;
        let (dynamodb, sqs) = (DynamoDb::new(&sdk), Sqs::new(&sdk));
        let deliveries = DeliveryTable::new(dynamodb.clone(), setting("DELIVERIES_TABLE")?);
        let events = EventTable::new(dynamodb.clone(), setting("EVENTS_TABLE")?);
        Ok(Self {
            config: ConfigTable::new(dynamodb, setting("CONFIG_TABLE")?),
            pages: Pages::of(deliveries, events),
            jobs: Queue::new(sqs.clone(), setting("JOB_QUEUE_URL")?),
            delivery: Queue::new(sqs.clone(), setting("DELIVERY_QUEUE_URL")?),
            expansion: Queue::new(sqs, setting("EXPANSION_QUEUE_URL")?),
            tasks_per_second: setting("TASKS_PER_SECOND")?,
        })
    }

    async fn status(&self, workspace: &WorkspaceId) -> Result<Option<WorkspaceStatus>, AwsError> {
        Ok(self.config.workspace(workspace).await?.map(|stored| stored.workspace.status))
    }
}

impl Ground for Stack {
    async fn job(&self, workspace: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
        self.config.job(workspace, job).await
    }

    async fn put_job(&self, job: &Job) -> Result<bool, AwsError> {
        self.config.put_job(job).await
    }

    async fn is_closed(&self, workspace: &WorkspaceId) -> Result<bool, AwsError> {
        Ok(self.status(workspace).await? == Some(WorkspaceStatus::Deleting))
    }

    async fn is_open(&self, workspace: &WorkspaceId) -> Result<bool, AwsError> {
        Ok(self.status(workspace).await? == Some(WorkspaceStatus::Active))
    }

    async fn take_apart(&self, workspace: &WorkspaceId) -> Result<Option<u64>, AwsError> {
        self.config.take_apart(workspace).await
    }

    async fn subscription(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
    ) -> Result<Option<Subscription>, AwsError> {
        Ok(self.config.subscription(workspace, subscription).await?.map(|stored| stored.subscription))
    }

    async fn redelivery_page(&self, job: &Job, wanted: &Redelivery) -> Result<Page<DeliveryTask>, AwsError> {
        self.pages.redelivery(&job.workspace, wanted, (job.created_at, now()), job.cursor).await
    }

    async fn replay_page(
        &self,
        job: &Job,
        wanted: &Replay,
        matcher: &Matcher,
    ) -> Result<Page<DeliveryTask>, AwsError> {
        let times = (job.created_at, now());
        self.pages.replay(&job.workspace, wanted, |event| matcher.wants(event), times, job.cursor).await
    }

    async fn events_page(&self, job: &Job, span: Span) -> Result<Page<EventRef>, AwsError> {
        self.pages.events(&job.workspace, span, now(), job.cursor).await
    }

    async fn deliver(&self, tasks: Vec<DeliveryTask>) -> Result<(), NotDone> {
        let message = |task: &DeliveryTask| {
            let (body, group) = (task.to_json()?, task.subscription.to_string());
            Ok(Message { body, group, delay_seconds: 0 })
        };
        send(&self.delivery, tasks.iter().map(message).collect::<Result<_, TaskError>>()?).await
    }

    async fn expand(&self, tasks: Vec<ExpansionTask>) -> Result<(), NotDone> {
        let message = |task: &ExpansionTask| {
            let (body, group) = (task.to_json()?, task.event.key.workspace.to_string());
            Ok(Message { body, group, delay_seconds: 0 })
        };
        send(&self.expansion, tasks.iter().map(message).collect::<Result<_, TaskError>>()?).await
    }

    async fn send(&self, task: &JobTask) -> Result<(), NotDone> {
        let message = Message { body: task.to_json()?, group: task.workspace.to_string(), delay_seconds: 0 };
        send(&self.jobs, vec![message]).await
    }

    fn tasks_per_second(&self) -> u32 {
        self.tasks_per_second
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

async fn send(queue: &Queue, messages: Vec<Message>) -> Result<(), NotDone> {
    for sent in queue.send(messages).await {
        sent?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::{Cell, RefCell};

    use carillon_core::delivery::Ask;
    use carillon_core::event::{AcceptedEvent, Event};
    use carillon_core::job::{Cursor, JobKind, JobStatus};
    use carillon_core::subscription::{
        AttemptTimeout, Authorization, CustomHeaders, Details, Format, Signatures, Status,
    };
    use carillon_core::time::UnixMillis;

    use super::*;

    /// How many events a page of the fake has.
    pub(crate) const PAGE: usize = 4;

    /// A workspace in memory.
    pub(crate) struct Fake {
        pub(crate) job: RefCell<Job>,
        pub(crate) subscriptions: Cell<u64>,
        pub(crate) closed: Cell<bool>,
        pub(crate) failing: Cell<bool>,
        pub(crate) sent: RefCell<Vec<JobTask>>,
        pub(crate) subscription: RefCell<Option<Subscription>>,
        pub(crate) pauses: Cell<usize>,
        pub(crate) dies_at_revision: Cell<Option<u64>>,
        pub(crate) cancelled_at_revision: Cell<Option<u64>>,
        pub(crate) expanded: RefCell<Vec<ExpansionTask>>,
        delivered: RefCell<Vec<DeliveryTask>>,
        events: Vec<AcceptedEvent>,
    }

    pub(crate) fn later() -> UnixMillis {
        now() + Duration::from_mins(1)
    }

    pub(crate) fn subscription() -> Subscription {
        let details = Details {
            endpoint: serde_json::from_value(serde_json::json!("https://tpp.example.com/")).unwrap(),
            title: None,
            types: vec!["consent:created".parse().unwrap()],
            filter: None,
            format: Format::default(),
            token: None,
            signatures: Signatures::default(),
            authorization: Authorization::None,
            client_certificate: None,
            headers: CustomHeaders::default(),
            retry_policy: None,
            timeout: AttemptTimeout::default(),
            rate_per_minute: None,
        };
        Subscription {
            id: SubscriptionId::new(UnixMillis(1), [7; 10]),
            workspace: "acme".parse().unwrap(),
            subscriber: "tpp-1".parse().unwrap(),
            details,
            status: Status::Active,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(1),
            revision: 1,
        }
    }

    /// Of two types, in turn.
    fn event(number: usize) -> AcceptedEvent {
        let name = if number.is_multiple_of(2) { "created" } else { "revoked" };
        let json =
            format!(r#"{{"specversion":"1.0","id":"{number}","source":"/s","type":"consent:{name}"}}"#);
        let at = UnixMillis(u64::try_from(number).unwrap());
        Event::from_structured(&json).unwrap().accepted("acme".parse().unwrap(), at)
    }

    impl Fake {
        pub(crate) fn with_subscriptions(subscriptions: u64) -> Self {
            let fake = Self::with_events(JobKind::DeleteWorkspace, 0);
            fake.subscriptions.set(subscriptions);
            fake
        }

        pub(crate) fn with_events(kind: JobKind, count: usize) -> Self {
            let id = JobId::new(UnixMillis(1), [0; 10]);
            let job = Job::new(id, ("acme".parse().unwrap(), None), kind, UnixMillis(1));
            Self {
                job: RefCell::new(job),
                subscriptions: Cell::new(0),
                closed: Cell::new(true),
                failing: Cell::new(false),
                sent: RefCell::default(),
                subscription: RefCell::new(Some(subscription())),
                pauses: Cell::new(0),
                dies_at_revision: Cell::new(None),
                cancelled_at_revision: Cell::new(None),
                expanded: RefCell::default(),
                delivered: RefCell::default(),
                events: (0..count).map(event).collect(),
            }
        }

        pub(crate) fn task(&self) -> JobTask {
            JobTask::of(&self.job.borrow())
        }

        pub(crate) fn is_completed(&self) -> bool {
            self.job.borrow().status == JobStatus::Completed
        }

        /// The numbers of the events whose tasks were sent.
        pub(crate) fn delivered(&self) -> Vec<usize> {
            let number = |task: &DeliveryTask| usize::try_from(task.event.accepted_at.0).unwrap();
            self.delivered.borrow().iter().map(number).collect()
        }

        fn page(&self, cursor: Option<Cursor>) -> (&[AcceptedEvent], Option<Cursor>) {
            let first = cursor.map_or(0, |cursor| usize::try_from(cursor.accepted_at.0).unwrap() + 1);
            let page = &self.events[first..self.events.len().min(first + PAGE)];
            let next = page.last().filter(|_| first + PAGE < self.events.len());
            (page, next.map(|last| Cursor { accepted_at: last.accepted_at, event: last.key.digest }))
        }

        fn fault(&self) -> Result<(), AwsError> {
            if self.failing.get() { Err(AwsError::Conflict { operation: "test" }) } else { Ok(()) }
        }
    }

    impl Ground for Fake {
        async fn job(&self, _: &WorkspaceId, job: JobId) -> Result<Option<Job>, AwsError> {
            Ok(Some(self.job.borrow().clone()).filter(|known| known.id == job))
        }

        async fn put_job(&self, job: &Job) -> Result<bool, AwsError> {
            if self.dies_at_revision.get() == Some(job.revision) {
                return Err(AwsError::Conflict { operation: "test" });
            }
            if self.cancelled_at_revision.get() == Some(job.revision) {
                let cancelled = self.job.borrow().clone().cancelled(now());
                self.job.replace(cancelled);
            }
            let is_next = self.job.borrow().revision + 1 == job.revision;
            if is_next {
                self.job.replace(job.clone());
            }
            Ok(is_next)
        }

        async fn is_closed(&self, _: &WorkspaceId) -> Result<bool, AwsError> {
            Ok(self.closed.get())
        }

        async fn is_open(&self, _: &WorkspaceId) -> Result<bool, AwsError> {
            Ok(!self.closed.get())
        }

        async fn take_apart(&self, _: &WorkspaceId) -> Result<Option<u64>, AwsError> {
            self.fault()?;
            let left = self.subscriptions.get();
            let went = left.min(100);
            self.subscriptions.set(left - went);
            Ok((went > 0).then_some(went))
        }

        async fn subscription(
            &self,
            _: &WorkspaceId,
            subscription: SubscriptionId,
        ) -> Result<Option<Subscription>, AwsError> {
            Ok(self.subscription.borrow().clone().filter(|known| known.id == subscription))
        }

        async fn redelivery_page(
            &self,
            job: &Job,
            wanted: &Redelivery,
        ) -> Result<Page<DeliveryTask>, AwsError> {
            let (page, next) = self.page(job.cursor);
            let task = |event| DeliveryTask::first(EventRef::of(event), wanted.subscription);
            let anew = |event| task(event).asking(Ask::NewRound { after: 1, forced: false });
            Ok(Page { found: page.iter().map(anew).collect(), looked: page.len(), next })
        }

        async fn replay_page(
            &self,
            job: &Job,
            wanted: &Replay,
            matcher: &Matcher,
        ) -> Result<Page<DeliveryTask>, AwsError> {
            let (page, next) = self.page(job.cursor);
            let task = |event| DeliveryTask::first(EventRef::of(event), wanted.subscription);
            let found = page.iter().filter(|event| matcher.wants(event)).map(task).collect();
            Ok(Page { found, looked: page.len(), next })
        }

        async fn events_page(&self, job: &Job, _: Span) -> Result<Page<EventRef>, AwsError> {
            let (page, next) = self.page(job.cursor);
            let reference = |event| EventRef { json: None, trace: None, ..EventRef::of(event) };
            Ok(Page { found: page.iter().map(reference).collect(), looked: page.len(), next })
        }

        async fn deliver(&self, tasks: Vec<DeliveryTask>) -> Result<(), NotDone> {
            self.fault()?;
            self.delivered.borrow_mut().extend(tasks);
            Ok(())
        }

        async fn expand(&self, tasks: Vec<ExpansionTask>) -> Result<(), NotDone> {
            self.fault()?;
            self.expanded.borrow_mut().extend(tasks);
            Ok(())
        }

        async fn send(&self, task: &JobTask) -> Result<(), NotDone> {
            self.sent.borrow_mut().push(task.clone());
            Ok(())
        }

        fn tasks_per_second(&self) -> u32 {
            1
        }

        async fn pause(&self, _: Duration) {
            self.pauses.set(self.pauses.get() + 1);
        }
    }
}
