//! Lines by their numbers, and what they have carried.

/// One line into the core, from when it was attached until its device is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LineId(pub(super) u64);

/// What a line has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Carried {
    /// Bytes of IP packets into the core.
    pub(crate) up_bytes: u64,
    /// Bytes of IP packets out of the core.
    pub(crate) down_bytes: u64,
}
