//! What stands below everything else of the crate, and imports nothing of it.

pub(crate) mod atomic_file;
pub(crate) mod clock;
pub(crate) mod rate_limit;
