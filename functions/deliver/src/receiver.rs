//! What attempts teach of a receiver, and what its subscriber is told.

use carillon_attempt::Target;
use carillon_aws::deliveries::State;
use carillon_aws::error::AwsError;
use carillon_aws::metrics::Counter;
use carillon_aws::now;
use carillon_core::health::{Health, Lesson};
use carillon_core::id::SubscriptionId;
use carillon_core::operational::{self, About, News};
use carillon_core::outcome::OutcomeClass;
use carillon_core::subscription::DisabledBy;
use carillon_core::task::DeliveryTask;

use crate::courier::Courier;

/// How often a lesson is tried to be kept, where other attempts of the subscription end at the same moment.
const LEARN_TRIES: usize = 4;

/// A subscription's state: as it was read for a batch, and as the batch's attempts have left it. They take turns, since
/// many of them can end in one moment, and none may be forgotten.
pub(crate) struct Seen {
    pub(crate) read: State,
    latest: tokio::sync::Mutex<State>,
}

impl Seen {
    pub(crate) fn new(read: State) -> Self {
        Self { latest: tokio::sync::Mutex::new(read.clone()), read }
    }

    /// Claims a trial with this health: `true` if no other task has it.
    pub(crate) async fn claim(
        &self,
        courier: &Courier,
        whose: (SubscriptionId, u64),
        claimed: &Health,
    ) -> Result<bool, AwsError> {
        let mut latest = self.latest.lock().await;
        let written = courier.deliveries.write_health(whose, &self.read, claimed, now()).await?;
        let is_claimed = written.is_ok();
        *latest = written.unwrap_or_else(|other| other);
        Ok(is_claimed)
    }
}

/// Closes the circuit of a subscription that gets nothing any more, so that what it holds is released and comes to its end.
pub(crate) async fn forget(courier: &Courier, subscription: SubscriptionId, seen: &Seen) {
    let mut latest = seen.latest.lock().await;
    if latest.trial_at().is_none() {
        return;
    }
    match courier.deliveries.write_health((subscription, 0), &latest, &Health::default(), now()).await {
        Ok(written) => *latest = written.unwrap_or_else(|other| other),
        Err(error) => tracing::warn!(%subscription, %error, "a circuit could not be closed"),
    }
}

/// A task's receiver.
pub(crate) struct Receiver<'a> {
    pub(crate) courier: &'a Courier,
    pub(crate) task: &'a DeliveryTask,
    pub(crate) target: &'a Target,
}

impl Receiver<'_> {
    /// Keeps what an attempt taught. It is a hint to later ones, so that no attempt depends on its success; where nothing
    /// is new, as where all goes well, nothing is written.
    pub(crate) async fn learn(&self, seen: &Seen, lesson: Lesson) {
        if let Err(error) = self.try_to_learn(&mut *seen.latest.lock().await, lesson).await {
            tracing::warn!(subscription = %self.task.subscription, %error, "what an attempt taught could not be kept");
        }
        if lesson.outcome == OutcomeClass::Gone {
            self.give_up(DisabledBy::Gone).await;
        }
    }

    async fn try_to_learn(&self, state: &mut State, lesson: Lesson) -> Result<(), AwsError> {
        let Courier { deliveries, pace, metrics, .. } = self.courier;
        let whose = (self.task.subscription, self.target.revision);
        for _ in 0..LEARN_TRIES {
            let before = state.health(self.target.revision);
            let after = before.after(lesson, pace).unwrap_or_else(|| before.clone());
            if after.is_hopeless(lesson.ended, pace) {
                self.give_up(DisabledBy::Failing).await;
                return Ok(());
            }
            if state.keeps(&after, self.target.revision) {
                return Ok(());
            }
            if let Some(failing_since) = state.told_failing().filter(|_| after == Health::default()) {
                // Told first: the same news twice are one event, and forgotten ones would never be told.
                self.tell(News::Recovered { failing_since }).await?;
            }
            match deliveries.write_health(whose, state, &after, lesson.ended).await? {
                Ok(written) => {
                    *state = written;
                    if before.circuit.is_none() && after.circuit.is_some() {
                        metrics.count(Counter::CircuitsOpened, 1);
                        tracing::warn!(subscription = %self.task.subscription, "its circuit opened");
                    }
                    return Ok(());
                }
                Err(other) => *state = other,
            }
        }
        // Others, who ended at the same moment, have taught as much.
        Ok(())
    }

    /// Disables the subscription, unless it was changed since, and tells so. Another attempt does so again if this fails.
    async fn give_up(&self, by: DisabledBy) {
        let revision = self.target.revision;
        let disabling = async {
            let whose = (&self.task.event.key.workspace, self.task.subscription);
            let disabled = self.courier.config.disable_subscription(whose, revision, by, now()).await?;
            if disabled {
                self.tell_always(News::Disabled { by, revision }).await?;
            }
            Ok::<_, AwsError>(disabled)
        };
        match disabling.await {
            Ok(true) => {
                self.courier.metrics.count(Counter::SubscriptionsDisabled, 1);
                tracing::warn!(subscription = %self.task.subscription, ?by, "disabled");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(subscription = %self.task.subscription, ?by, %error, "it could not be disabled");
            }
        }
    }

    /// Tells the subscriber, unless it is of an attempt at telling something.
    pub(crate) async fn tell(&self, news: News<'_>) -> Result<(), AwsError> {
        if operational::is_operational(&self.task.event.event_type) {
            return Ok(());
        }
        self.tell_always(news).await
    }

    async fn tell_always(&self, news: News<'_>) -> Result<(), AwsError> {
        let Courier { events, public_url, retention, .. } = self.courier;
        let (workspace, now) = (&self.task.event.key.workspace, now());
        let about = About {
            api: public_url,
            workspace,
            subscriber: &self.target.subscriber,
            subscription: self.task.subscription,
        };
        match news.event(about, now) {
            Ok(event) => events
                .accept(event, (workspace.clone(), self.target.made_at), false, now, *retention)
                .await
                .map(drop),
            Err(error) => {
                tracing::error!(%error, "news make no event");
                Ok(())
            }
        }
    }
}
