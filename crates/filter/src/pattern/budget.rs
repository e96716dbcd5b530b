//! What one evaluation may cost.

use crate::TooCostly;

/// The most steps of one evaluation. A step looks at one value, field or condition, or at some characters of a text.
pub const STEPS_MAX: usize = 1_000_000;

/// How many characters of a text a comparison looks at in one step.
const CHARACTERS_PER_STEP: usize = 32;

/// The steps that are left.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn full() -> Self {
        Self { left: STEPS_MAX }
    }

    pub(super) fn step(&mut self) -> Result<(), TooCostly> {
        self.steps(1)
    }

    pub(super) fn steps(&mut self, count: usize) -> Result<(), TooCostly> {
        self.left = self.left.checked_sub(count).ok_or(TooCostly)?;
        Ok(())
    }

    pub(super) fn read(&mut self, characters: usize) -> Result<(), TooCostly> {
        self.steps(1 + characters / CHARACTERS_PER_STEP)
    }
}
