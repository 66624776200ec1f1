//! Faults of our own, for the tests of the checkers: each breaks one guarantee, and a checker that misses it is none.

/// A guarantee that a debug build breaks when the environment says `CAUSEWAY_MUTANT=name`. No other build can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A session forgets that it has written, or read on the primary.
    ForgetsWrites,
    /// A position that was asked for before a write counts as after it.
    OldPosition,
    /// The flush position is taken for the insert position, whatever `synchronous_commit` says.
    FlushPosition,
    /// Nobody looks at what a guard query answers.
    BlindGuard,
    /// A session moves to another replica without asking how far that is.
    Wanders,
    /// A strong read takes the last position that is known.
    OldStrong,
    /// `causeway.after` is accepted and forgotten.
    DeafToTokens,
    /// A replica counts as just as fresh as its last sample.
    FlatteringStaleness,
}

impl Mutant {
    pub const ALL: [Self; 8] = [
        Self::ForgetsWrites,
        Self::OldPosition,
        Self::FlushPosition,
        Self::BlindGuard,
        Self::Wanders,
        Self::OldStrong,
        Self::DeafToTokens,
        Self::FlatteringStaleness,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForgetsWrites => "forgets_writes",
            Self::OldPosition => "old_position",
            Self::FlushPosition => "flush_position",
            Self::BlindGuard => "blind_guard",
            Self::Wanders => "wanders",
            Self::OldStrong => "old_strong",
            Self::DeafToTokens => "deaf_to_tokens",
            Self::FlatteringStaleness => "flattering_staleness",
        }
    }

    /// Always false in a release build.
    #[cfg(debug_assertions)]
    pub fn is_on(self) -> bool {
        std::env::var("CAUSEWAY_MUTANT").is_ok_and(|name| name == self.as_str())
    }

    /// Always false in a release build.
    #[cfg(not(debug_assertions))]
    pub const fn is_on(self) -> bool {
        false
    }
}
