//! Sets of branches: of the ways in which the alternatives of a pattern's `$or`s can be combined.

/// The most ways to combine the alternatives of all `$or`s of a pattern. EventBridge has a bound of 1000.
pub const BRANCHES_MAX: usize = 1024;

const WORDS: usize = BRANCHES_MAX / WORD_BITS;
const WORD_BITS: usize = u64::BITS as usize;

/// A set of numbers below [`BRANCHES_MAX`], of which those below a count that all sets of a pattern share are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branches {
    words: [u64; WORDS],
    used: usize,
}

impl Branches {
    /// The empty set, for numbers below `count`.
    pub(super) fn none(count: usize) -> Self {
        Self { words: [0; WORDS], used: count.div_ceil(WORD_BITS).min(WORDS) }
    }

    /// All numbers below `count`.
    pub(super) fn all(count: usize) -> Self {
        (0..count).fold(Self::none(count), |mut all, branch| {
            all.insert(branch);
            all
        })
    }

    /// How many words each operation looks at.
    pub(super) fn words(&self) -> usize {
        self.used
    }

    pub(super) fn insert(&mut self, branch: usize) {
        self.words[branch / WORD_BITS] |= 1 << (branch % WORD_BITS);
    }

    pub(super) fn contains(&self, branch: usize) -> bool {
        self.words[branch / WORD_BITS] & (1 << (branch % WORD_BITS)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words[..self.used].iter().all(|word| *word == 0)
    }

    pub(super) fn add(&mut self, others: &Self) {
        self.zip(others, |word, other| word | other);
    }

    pub(super) fn remove(&mut self, others: &Self) {
        self.zip(others, |word, other| word & !other);
    }

    pub(super) fn both(mut self, others: &Self) -> Self {
        self.zip(others, |word, other| word & other);
        self
    }

    pub(super) fn without(mut self, others: &Self) -> Self {
        self.remove(others);
        self
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words[..self.used].iter().enumerate().flat_map(|(index, word)| {
            let lowest_removed = |word: &u64| Some(word & word.wrapping_sub(1));
            let rests = std::iter::successors(Some(*word), lowest_removed).take_while(|rest| *rest != 0);
            rests.map(move |rest| index * WORD_BITS + rest.trailing_zeros() as usize)
        })
    }

    fn zip(&mut self, others: &Self, combine: impl Fn(u64, u64) -> u64) {
        for index in 0..self.used {
            self.words[index] = combine(self.words[index], others.words[index]);
        }
    }
}
