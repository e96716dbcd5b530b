//! How long a run goes on with what fails, and what a failure is.

use std::time::Duration;

use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::task::TaskError;
use carillon_core::time::UnixMillis;

/// The pauses before what failed is tried again.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a run tries again what DynamoDB or SQS refused: Lambda gives a batch of the stream up after some runs, and
/// an outage should not be the end of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    until: UnixMillis,
}

/// A record that could not be planned, and will be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unplanned {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("the workspace's subscriptions changed each time while they were read")]
    Moved,
    #[error("it goes to the failure queue by the redrive policy")]
    Poisoned,
}

impl Patience {
    pub(crate) const fn until(until: UnixMillis) -> Self {
        Self { until }
    }

    pub(crate) fn is_over(self) -> bool {
        now() > self.until
    }

    /// Does something until it succeeds, fails for good, or the time is over.
    pub(crate) async fn over<T, E: Into<Unplanned>, F: Future<Output = Result<T, E>>>(
        self,
        mut what: impl FnMut() -> F,
    ) -> Result<T, Unplanned> {
        let mut pause = FIRST_PAUSE;
        loop {
            match what().await.map_err(Into::into) {
                Err(error) if !error.is_lasting() && !self.is_over() => {
                    tracing::warn!(%error, "tried again");
                    tokio::time::sleep(pause).await;
                    pause = PAUSE_MAX.min(pause * 2);
                }
                result => return result,
            }
        }
    }
}

impl Unplanned {
    /// Whether it would be the same the next time.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Aws(error) => matches!(error, AwsError::Item { .. }),
            Self::Moved => false,
            Self::Task(_) | Self::Poisoned => true,
        }
    }
}
