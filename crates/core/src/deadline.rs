//! Deadlines: what is due when something did not happen in time.
//!
//! Each rule of a catalogue has one deadline for each subject. An event that starts it arms it, one that settles it ends
//! it, whichever is accepted first; when it is due and still armed, it fires, once. Which events those are says the
//! catalogue; here is what they do.

use crate::id::EventDigest;
use crate::time::UnixMillis;

/// The deadline of a rule for one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// What it waits for has not happened yet.
    Armed(Start),
    /// What it waits for has happened: it is due no more, and never again, whatever comes late.
    Settled,
    /// It was due, and its event was accepted.
    Fired,
}

/// What armed a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// When it is due: so long after the event's time as its rule says.
    pub due: UnixMillis,
    /// The event.
    pub event: EventDigest,
}

/// What an event does to a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It begins to run.
    Start(Start),
    /// It ends.
    Settle,
}

/// Which deadline: that of a rule for a subject, within a workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadlineKey {
    /// The rule's name.
    pub rule: String,
    /// What the events that concern it have in common, such as the id of a consent.
    pub subject: String,
}

/// What the acceptance of an event brings about, besides its deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whether other events follow from it, which fan-out accepts in their turn.
    pub cascades: bool,
    /// The deadlines that it touches, each once.
    pub touches: Vec<(DeadlineKey, Touch)>,
}

impl Deadline {
    /// What a deadline becomes by an event, given what it was, if it was there; `None`: what it was. Of several starts the
    /// earliest counts, so that it does not matter in what order they are accepted. A settlement before any start is
    /// remembered.
    #[must_use]
    pub fn touched(now: Option<Self>, touch: Touch) -> Option<Self> {
        match (now, touch) {
            (None, Touch::Start(start)) => Some(Self::Armed(start)),
            (Some(Self::Armed(before)), Touch::Start(start)) => {
                (start.due < before.due).then_some(Self::Armed(start))
            }
            (None | Some(Self::Armed(_)), Touch::Settle) => Some(Self::Settled),
            (Some(Self::Settled | Self::Fired), _) => None,
        }
    }

    /// What makes it fire at this time, if it does.
    #[must_use]
    pub fn fires(self, now: UnixMillis) -> Option<Start> {
        match self {
            Self::Armed(start) if start.due <= now => Some(start),
            Self::Armed(_) | Self::Settled | Self::Fired => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BEGIN: u64 = 1_795_339_800_000;
    const WITHIN: Duration = Duration::from_hours(1);

    /// What happens to a deadline, one after the other, as its writes are serialised.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// An event that starts it is accepted: one of a few, each with its own time.
        Start(u8),
        /// One that settles it is accepted.
        Settle,
        /// Time passes.
        Wait(u16),
        /// The clock looks at what is due.
        Tick,
        /// A run of the clock that was about to fire it goes on, with what it had read.
        LateTick(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u8..4).prop_map(Step::Start),
            1 => Just(Step::Settle),
            3 => (0_u16..3000).prop_map(Step::Wait),
            3 => Just(Step::Tick),
            2 => (0_u8..8).prop_map(Step::LateTick),
        ];
        proptest::collection::vec(step, 0..40)
    }

    /// The event's own time: some are long past when they are accepted, one lies ahead.
    fn start(event: u8) -> Start {
        let time = UnixMillis(BEGIN - 1_800_000) + Duration::from_mins(15) * u32::from(event);
        Start { due: time + WITHIN, event: EventDigest::of("/s", &event.to_string()) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn it_fires_once_or_never_as_the_rule_says(steps in steps()) {
            let mut now = UnixMillis(BEGIN);
            let mut deadline: Option<Deadline> = None;
            // Each write is made on the condition of what was read: a version tells.
            let mut version = 0_u32;
            let mut seen: Vec<(u32, Option<Deadline>, UnixMillis)> = Vec::new();
            let (mut starts, mut settled, mut fired) = (Vec::new(), false, Vec::new());
            for step in steps {
                match step {
                    Step::Start(event) => {
                        if fired.is_empty() && !settled {
                            starts.push(start(event));
                        }
                        if let Some(next) = Deadline::touched(deadline, Touch::Start(start(event))) {
                            (deadline, version) = (Some(next), version + 1);
                        }
                    }
                    Step::Settle => {
                        settled = true;
                        if let Some(next) = Deadline::touched(deadline, Touch::Settle) {
                            (deadline, version) = (Some(next), version + 1);
                        }
                    }
                    Step::Wait(seconds) => now = now + Duration::from_secs(seconds.into()),
                    Step::Tick => {
                        seen.push((version, deadline, now));
                        if let Some(start) = deadline.and_then(|deadline| deadline.fires(now)) {
                            prop_assert!(!settled, "it had been settled");
                            (deadline, version) = (Some(Deadline::Fired), version + 1);
                            fired.push((now, start));
                        }
                    }
                    Step::LateTick(which) => {
                        let Some((read, was, at)) = seen.get(usize::from(which)).copied() else { continue };
                        if let Some(start) = was.and_then(|was| was.fires(at)) && read == version {
                            (deadline, version) = (Some(Deadline::Fired), version + 1);
                            fired.push((at, start));
                        }
                    }
                }
                let earliest = starts.iter().map(|start| start.due).min();
                prop_assert!(fired.len() <= 1, "{fired:?}");
                if let Some((at, start)) = fired.first() {
                    prop_assert!(*at >= start.due && Some(start.due) == earliest);
                }
            }
            // In the end the clock looks once more, long after everything was due.
            let due = deadline.and_then(|deadline| deadline.fires(now + WITHIN * 100));
            let expected = !starts.is_empty() && !settled && fired.is_empty();
            prop_assert_eq!(due.is_some(), expected);
        }

        #[test]
        fn the_order_of_events_makes_no_difference(events in Just([0_u8, 1, 2, 3, 4]).prop_shuffle(), with in 0_usize..=5) {
            // The fourth settles it, if it is among the first so many.
            let touch = |event: u8| if event == 4 { Touch::Settle } else { Touch::Start(start(event)) };
            let after = |events: &[u8]| {
                events.iter().fold(None, |deadline, event| Deadline::touched(deadline, touch(*event)).or(deadline))
            };
            let mut sorted = events[..with].to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(after(&events[..with]), after(&sorted));
        }
    }

    #[test]
    fn what_is_settled_first_never_starts() {
        let settled = Deadline::touched(None, Touch::Settle);
        assert_eq!(settled, Some(Deadline::Settled));
        assert_eq!(Deadline::touched(settled, Touch::Start(start(0))), None);
        assert_eq!(Deadline::Settled.fires(UnixMillis(u64::MAX)), None);
    }

    #[test]
    fn it_fires_at_its_time_and_not_before() {
        let armed = Deadline::Armed(start(0));
        assert_eq!(armed.fires(UnixMillis(start(0).due.0 - 1)), None);
        assert_eq!(armed.fires(start(0).due), Some(start(0)));
        assert_eq!(Deadline::Fired.fires(start(0).due), None);
    }
}
