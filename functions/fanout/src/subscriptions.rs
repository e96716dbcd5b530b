//! The subscriptions that an event concerns.
//!
//! What matching reads of a workspace (rows, pattern by pattern, and filters) changes in transactions, but is read piece
//! by piece, and partly kept from earlier. Were a subscription's patterns swapped between two reads, its old row could be
//! gone already and its new one not yet seen, and it would miss an event that it asked for before and after. So what was
//! read counts only if the workspace is at the same version after the reads as before them: then it was at that version
//! all the time, as was all that is kept under it. Otherwise matching begins again, with the new version.
//!
//! DynamoDB makes the items of a transaction visible one by one, within milliseconds. So a run that begins with a version
//! that came into being a moment ago gives it time for the rest before anything is read; and what is read under it soon
//! after does not outlive its run, see [`crate::cache`]. Versions that come during a run are not waited for: who changes
//! subscriptions all the time would hold up the events of others.
//!
//! Where all is kept nothing is read, since the version that the run has begun with was read after its events had been
//! accepted.

mod step;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_aws::config::MatchingVersion;
use carillon_aws::error::AwsError;
use carillon_aws::now;
use carillon_core::event::AcceptedEvent;
use carillon_core::id::{SubscriptionId, WorkspaceId};
use carillon_core::matching::Range;

use self::step::Step;
use crate::cache::{Cache, NewlyRead};
use crate::filters::Failures;
use crate::patience::{Patience, Unplanned};
use crate::source::{Source, Versions};

/// How old a version is that needs no time any more, clocks being what they are.
const YOUNG: Duration = Duration::from_secs(1);

/// The time that a younger one is given.
const SETTLING_TIME: Duration = Duration::from_millis(200);

/// The subscriptions of workspaces.
pub(crate) struct Subscriptions<S> {
    source: S,
    kept: Mutex<Cache>,
}

/// The versions of workspaces that a run goes by, and the time that it has spent on the filters of each.
pub(crate) struct Current {
    versions: Mutex<Versions>,
    filtered_for: Mutex<HashMap<WorkspaceId, Duration>>,
}

/// Whom an event concerns, within a range of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// They get it.
    pub(crate) subscriptions: Vec<SubscriptionId>,
    /// How many do not, by their filters' word.
    pub(crate) filtered_out: usize,
    /// Those among them whose filters could not be evaluated.
    pub(crate) failures: Failures,
    /// What of the range is left for other steps.
    pub(crate) parts: Vec<Range>,
}

impl<S: Source> Subscriptions<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, kept: Mutex::default() }
    }

    /// Reads the versions that a run goes by.
    pub(crate) async fn begin(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Current, AwsError> {
        let mut versions = self.source.versions(workspaces).await?;
        if versions.values().flatten().any(is_young) {
            tokio::time::sleep(SETTLING_TIME).await;
            versions = self.source.versions(workspaces).await?;
        }
        for (workspace, version) in &versions {
            if let Ok(version) = version {
                self.kept().begin(workspace, version.number, now());
            }
        }
        Ok(Current { versions: Mutex::new(versions), filtered_for: Mutex::default() })
    }

    /// Whom an event concerns within a range. Begins anew while the workspace changes under it, until `patience` is
    /// over. Filters that do not fit into their time are left to another step; if there is any time, one at least is asked.
    pub(crate) async fn matching(
        &self,
        current: &Current,
        event: &AcceptedEvent,
        range: Range,
        patience: Patience,
        filtering_time: Duration,
    ) -> Result<Matched, Unplanned> {
        let workspace = &event.key.workspace;
        while let Some(version) = current.version(workspace)? {
            let mut step = Step {
                of: self,
                version: version.number,
                event,
                range,
                patience,
                filtering_time,
                filtered_for: Duration::ZERO,
                read: NewlyRead::default(),
            };
            let matched = step.matched().await?;
            current.add_filtered_for(workspace, step.filtered_for);
            if !step.read.any {
                return Ok(matched);
            }
            let read = step.read;
            let version_after = self.source.version(workspace).await?;
            if version_after == Some(version) {
                self.kept().keep(workspace, version.number, read, now());
                return Ok(matched);
            }
            current.moved(workspace, version_after);
            if let Some(version) = version_after {
                self.kept().begin(workspace, version.number, now());
            }
            if patience.is_over() {
                return Err(Unplanned::Moved);
            }
        }
        Ok(Matched::default())
    }

    fn kept(&self) -> MutexGuard<'_, Cache> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// The time that the run has spent on a workspace's filters.
    pub(crate) fn filtered_for(&self, workspace: &WorkspaceId) -> Duration {
        let filtered_for = self.filtered_for.lock().unwrap_or_else(PoisonError::into_inner);
        filtered_for.get(workspace).copied().unwrap_or_default()
    }

    fn add_filtered_for(&self, workspace: &WorkspaceId, time: Duration) {
        let mut filtered_for = self.filtered_for.lock().unwrap_or_else(PoisonError::into_inner);
        *filtered_for.entry(workspace.clone()).or_default() += time;
    }

    fn version(&self, workspace: &WorkspaceId) -> Result<Option<MatchingVersion>, AwsError> {
        match self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(workspace) {
            None => Ok(None),
            Some(Ok(version)) => Ok(Some(*version)),
            Some(Err(detail)) => Err(AwsError::Item { table: "config", detail: detail.clone() }),
        }
    }

    fn moved(&self, workspace: &WorkspaceId, version: Option<MatchingVersion>) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => _ = versions.insert(workspace.clone(), Ok(version)),
            None => _ = versions.remove(workspace),
        }
    }
}

fn is_young(version: &MatchingVersion) -> bool {
    now().since(version.changed_at) < YOUNG
}

impl Matched {
    fn add(&mut self, subscription: SubscriptionId, verdict: Result<bool, String>) {
        match verdict {
            Ok(true) => return self.subscriptions.push(subscription),
            Ok(false) => {}
            Err(reason) => self.failures.add(subscription, &reason),
        }
        self.filtered_out += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use carillon_core::event::Event;
    use carillon_core::matching::{EXPANSION_SIZE, MatchRow};
    use carillon_core::subscription::FilterSource;
    use carillon_core::time::UnixMillis;
    use serde_json::{Value, json};

    use super::*;

    const FOR_EVER: Patience = Patience::until(UnixMillis(u64::MAX));
    const OVER: Patience = Patience::until(UnixMillis(0));
    const ALL: Range = Range { after: None, up_to: None };

    /// A workspace's subscriptions, and what happens to them between reads.
    #[derive(Default)]
    struct World {
        version: Option<u64>,
        /// Long ago if absent.
        changed_at: Option<UnixMillis>,
        rows: HashMap<String, Vec<MatchRow>>,
        filters: HashMap<SubscriptionId, FilterSource>,
        reads: usize,
        changes: HashMap<usize, fn(&mut World)>,
        always: Option<fn(&mut World)>,
    }

    impl World {
        fn put(&mut self, pattern: &str, id: u64, filter: Option<Value>) {
            let row = MatchRow {
                subscription: subscription(id),
                subscriber: "tpp".parse().unwrap(),
                filtered: filter.is_some(),
                created_at: UnixMillis(0),
            };
            self.rows.entry(pattern.to_owned()).or_default().push(row);
            self.filters.extend(filter.map(|filter| (subscription(id), FilterSource::Pattern(filter))));
            self.version = self.version.or(Some(1));
        }

        /// Makes what asked for `a:b` ask for `a:*`, and the other way round.
        fn swap(&mut self) {
            let [exact, prefix] = ["a:b", "a:*"].map(|pattern| self.rows.remove(pattern).unwrap_or_default());
            self.rows.extend([("a:b".to_owned(), prefix), ("a:*".to_owned(), exact)]);
            self.change();
        }

        fn matching_version(&self) -> Option<MatchingVersion> {
            let changed_at = self.changed_at.unwrap_or(UnixMillis(0));
            self.version.map(|number| MatchingVersion { number, changed_at })
        }

        fn change(&mut self) {
            self.version = self.version.map(|version| version + 1);
        }

        /// Before the first read, or after one.
        fn at_read(&mut self) {
            if let Some(change) = self.changes.remove(&self.reads).or(self.always) {
                change(self);
            }
            self.reads += 1;
        }
    }

    impl Source for Mutex<World> {
        async fn versions(&self, workspaces: &HashSet<WorkspaceId>) -> Result<Versions, AwsError> {
            let version = self.lock().unwrap().matching_version();
            Ok(workspaces.iter().filter_map(|id| Some((id.clone(), Ok(version?)))).collect())
        }

        async fn version(&self, _: &WorkspaceId) -> Result<Option<MatchingVersion>, AwsError> {
            let mut world = self.lock().unwrap();
            world.at_read();
            Ok(world.matching_version())
        }

        async fn rows(&self, _: &WorkspaceId, pattern: &str, _: Range) -> Result<Vec<MatchRow>, AwsError> {
            let mut world = self.lock().unwrap();
            world.at_read();
            Ok(world.rows.get(pattern).cloned().unwrap_or_default())
        }

        async fn filters(
            &self,
            _: &WorkspaceId,
            subscriptions: &[SubscriptionId],
        ) -> Result<HashMap<SubscriptionId, FilterSource>, AwsError> {
            let mut world = self.lock().unwrap();
            world.at_read();
            let filter = |id: &SubscriptionId| Some((*id, world.filters.get(id)?.clone()));
            Ok(subscriptions.iter().filter_map(filter).collect())
        }
    }

    fn subscription(id: u64) -> SubscriptionId {
        SubscriptionId::new(UnixMillis(id), [0; 10])
    }

    fn event(event_type: &str, data: &str) -> AcceptedEvent {
        let json =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{event_type}","data":{data}}}"#);
        Event::from_structured(&json).unwrap().accepted("acme".parse().unwrap(), UnixMillis(0))
    }

    struct Run {
        subscriptions: Subscriptions<Mutex<World>>,
        current: Current,
    }

    impl Run {
        async fn begin(world: World) -> Self {
            let subscriptions = Subscriptions::new(Mutex::new(world));
            let current = subscriptions.begin(&HashSet::from(["acme".parse().unwrap()])).await.unwrap();
            Self { subscriptions, current }
        }

        async fn matching(&self, event: &AcceptedEvent, range: Range) -> Matched {
            self.subscriptions.matching(&self.current, event, range, FOR_EVER, Duration::MAX).await.unwrap()
        }

        fn world(&self) -> MutexGuard<'_, World> {
            self.subscriptions.source.lock().unwrap()
        }
    }

    #[tokio::test]
    async fn swapped_patterns_are_missed_at_no_moment() {
        for (moment, asked_for) in (0..12).flat_map(|moment| [(moment, "a:b"), (moment, "a:*")]) {
            for keeps_some in [false, true] {
                let mut world = World::default();
                world.put(asked_for, 1, Some(json!({"data": [7]})));
                world.changes.insert(moment, World::swap);
                let run = Run::begin(world).await;
                if keeps_some {
                    // The rows of `a:*`, beside which those of `a:b` are read later.
                    run.matching(&event("a:c", "7"), ALL).await;
                }
                let matched = run.matching(&event("a:b", "7"), ALL).await;
                assert_eq!(matched.subscriptions, [subscription(1)], "{asked_for} {moment} {keeps_some}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_not_read() {
        let mut world = World::default();
        world.put("a:*", 1, Some(json!({"data": [7]})));
        let run = Run::begin(world).await;
        run.matching(&event("a:b", "7"), ALL).await;
        let reads = run.world().reads;
        assert_eq!(reads, 5, "three patterns, a filter, the version");
        for _ in 0..3 {
            assert_eq!(run.matching(&event("a:b", "7"), ALL).await.subscriptions.len(), 1);
        }
        assert_eq!(run.world().reads, reads);
    }

    #[tokio::test]
    async fn a_part_is_not_taken_for_all() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        let run = Run::begin(world).await;
        let part = Range { after: Some(subscription(5)), up_to: None };
        assert!(run.matching(&event("a:b", "7"), part).await.subscriptions.is_empty());
        assert_eq!(run.world().reads, 4, "three patterns and the version");
        assert_eq!(run.matching(&event("a:b", "7"), ALL).await.subscriptions.len(), 1);
        assert_eq!(run.world().reads, 8);
    }

    #[tokio::test]
    async fn a_workspace_that_never_rests_is_left_for_later() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.always = Some(World::change);
        let Run { subscriptions, current } = Run::begin(world).await;
        let matched = subscriptions.matching(&current, &event("a:b", "7"), ALL, OVER, Duration::MAX).await;
        assert!(matches!(matched, Err(Unplanned::Moved)));
    }

    #[tokio::test]
    async fn a_workspace_that_goes_away_matches_nothing() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.changes.insert(2, |world| world.version = None);
        let run = Run::begin(world).await;
        assert!(run.matching(&event("a:b", "7"), ALL).await.subscriptions.is_empty());
        let reads = run.world().reads;
        assert!(run.matching(&event("a:b", "7"), ALL).await.subscriptions.is_empty());
        assert_eq!(run.world().reads, reads);
    }

    #[tokio::test]
    async fn filters_have_the_last_word() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.put("a:*", 2, Some(json!({"data": [7]})));
        world.put("*", 3, Some(json!({"data": [8]})));
        world.put("*", 4, Some(json!({"data": [7]})));
        world.filters.remove(&subscription(4));
        let run = Run::begin(world).await;
        for _ in 0..2 {
            let matched = run.matching(&event("a:b", "7"), ALL).await;
            assert_eq!(matched.subscriptions, [1, 2].map(subscription));
            assert_eq!(matched.filtered_out, 2);
            assert_eq!(format!("{:?}", matched.failures).matches("sub_").count(), 1, "the last one's");
        }
    }

    #[tokio::test]
    async fn an_event_that_is_no_value_matches_no_filter() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.put("a:b", 2, Some(json!({"type": ["a:b"]})));
        let run = Run::begin(world).await;
        for data in ["1e999".to_owned(), format!("{}{}", "[".repeat(200), "]".repeat(200))] {
            let matched = run.matching(&event("a:b", &data), ALL).await;
            assert_eq!((matched.subscriptions.len(), matched.filtered_out), (1, 1));
        }
    }

    #[tokio::test]
    async fn too_many_candidates_are_split_before_a_filter_is_asked() {
        let mut world = World::default();
        for id in 0..=EXPANSION_SIZE as u64 {
            world.put("a:b", id, Some(json!({"data": [8]})));
        }
        let run = Run::begin(world).await;
        let matched = run.matching(&event("a:b", "7"), ALL).await;
        assert!(matched.subscriptions.is_empty() && matched.parts.len() > 1);
        assert_eq!(run.world().reads, 4, "three patterns and the version");
        let mut filtered_out = 0;
        for part in matched.parts {
            filtered_out += run.matching(&event("a:b", "7"), part).await.filtered_out;
        }
        assert_eq!(filtered_out, EXPANSION_SIZE + 1);
    }

    #[tokio::test]
    async fn filters_for_which_there_is_no_time_are_left_to_other_steps() {
        let mut world = World::default();
        for id in 0..10 {
            world.put("a:b", id, (id % 2 == 1).then(|| json!({"data": [7]})));
        }
        let run = Run::begin(world).await;
        let (mut parts, mut found, mut steps) = (vec![ALL], Vec::new(), 0);
        while let Some(part) = parts.pop() {
            let event = event("a:b", "7");
            let matched = run.subscriptions.matching(&run.current, &event, part, OVER, Duration::MAX);
            let matched = matched.await.unwrap();
            found.extend(matched.subscriptions);
            parts.extend(matched.parts);
            steps += 1;
        }
        assert_eq!(found, (0..10).map(subscription).collect::<Vec<_>>());
        assert_eq!(steps, 5, "each evaluates one filter");
    }

    #[tokio::test]
    async fn a_workspace_that_has_had_its_time_is_left_to_other_steps_as_a_whole() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.put("a:b", 2, Some(json!({"data": [7]})));
        world.put("c:d", 3, None);
        let run = Run::begin(world).await;
        let matching = async |event: &AcceptedEvent| {
            run.subscriptions.matching(&run.current, event, ALL, FOR_EVER, Duration::ZERO).await.unwrap()
        };
        let matched = matching(&event("a:b", "7")).await;
        assert_eq!((matched.subscriptions, matched.parts), (vec![], vec![ALL]));
        assert_eq!(run.world().reads, 4, "three patterns and the version, no filter");
        assert_eq!(matching(&event("c:d", "7")).await.subscriptions, [subscription(3)], "no filter is asked");
    }

    #[tokio::test]
    async fn the_time_of_filters_adds_up_by_workspace() {
        let run = Run::begin(World::default()).await;
        let [acme, other]: [WorkspaceId; 2] = ["acme", "other"].map(|id| id.parse().unwrap());
        run.current.add_filtered_for(&acme, Duration::from_millis(30));
        run.current.add_filtered_for(&acme, Duration::from_millis(12));
        assert_eq!(run.current.filtered_for(&acme), Duration::from_millis(42));
        assert_eq!(run.current.filtered_for(&other), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_young_version_is_given_time() {
        let mut world = World::default();
        world.put("a:b", 1, None);
        world.changed_at = Some(now());
        let began = now();
        let run = Run::begin(world).await;
        assert_eq!(run.matching(&event("a:b", "7"), ALL).await.subscriptions.len(), 1);
        assert!(now().since(began) >= SETTLING_TIME);
        assert!(!is_young(&MatchingVersion { number: 1, changed_at: now().minus(YOUNG) }));
    }
}
