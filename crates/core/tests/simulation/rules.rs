//! The rules that a delivery's life is made of. Each can be broken: a run with a broken rule must be found out.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule, named by what it says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

rules! {
    /// An event is fanned out from the stream until all of its tasks are sent: the checkpoint is the first unfinished.
    CheckpointIsTheFirstUnfinished,
    /// A subscription that was created before an event gets it, though the two clocks differ.
    ClocksDifferInItsFavour,
    /// The parts of an event with many subscriptions cover all of them.
    PartsCoverAll,
    /// A message is removed from its queue when all is done that it asks for, and not before.
    MessageOutlastsItsWork,
    /// A message whose function crashed too often is kept, and comes again when an operator says so.
    CrashedTasksAreKept,
    /// The batch read drops the tasks of what is done.
    ReadDropsWhatIsDone,
    /// The first attempt's row is put if it is absent.
    FirstIsPutIfAbsent,
    /// Later attempts take a lease.
    LaterOnesLease,
    /// While one has the lease no other gets it.
    LeaseExcludesOthers,
    /// An attempt is recorded if it is the next one.
    RecordIsOfTheNextAttempt,
    /// An attempt is recorded if it belongs to the round that the row is in.
    RecordIsOfItsRound,
    /// The outcome is recorded before the next task is sent.
    RecordComesBeforeSend,
    /// Whoever loses the record sends nothing.
    LoserSendsNothing,
    /// A copy of a task that finds another one at its attempt, or loses to it, comes again until the row tells what came of
    /// the attempt.
    LoserComesAgain,
    /// A conditional write whose answer was lost is known by its writer's name.
    WriterIsKnownAgain,
    /// The writer's name is that of one write: what two copies of a task have in common is none.
    WriterIsOneWrite,
    /// A task that finds its own attempt recorded as the last one sends the letter again.
    LetterIsSentAgain,
    /// Waits that no queue can hold pass in the schedule.
    LongWaitsAreScheduled,
    /// The clock sends again what is overdue.
    OverdueIsSentAgain,
    /// The clock notes that it sends again before it does.
    ResendIsNotedFirst,
    /// What is put off is leased meanwhile.
    PutOffTakesTheLease,
    /// The note that a subscription holds something is made before it does.
    NoteComesBeforeHold,
    /// A delivery is held under the condition of a lease.
    HoldNeedsTheLease,
    /// Only what is held is released.
    OnlyHeldIsReleased,
    /// What is released is due, so that the sweep finds it.
    ReleasedIsDue,
    /// Who made a note makes it anew before it may be gone.
    NoteIsRememberedBriefly,
    /// A note is kept for longer than a function runs that made one.
    NoteOutlivesItsMaker,
    /// A note that was made anew is not removed for the old one's age.
    NoteIsForgottenAsSeen,
    /// A new round begins after a failed one, unless it is forced.
    RoundFollowsFailure,
    /// A new round begins after the round that its task tells of.
    RoundFollowsItsOwn,
    /// While a subscription is paused its deliveries are held.
    PauseHolds,
    /// Deliveries of a disabled subscription fail without an attempt.
    DisabledGetsNothing,
    /// A subscription is taken for what it was for a moment only.
    TargetIsFresh,
    /// An open circuit lets one trial through at a time.
    OneTrialAtATime,
    /// Slots are taken from one line, whatever runs beside.
    SlotsAreTakenOnce,
    /// A slot that went by is not used.
    LateSlotIsGivenBack,
}
