//! What everything stands on, and what imports nothing else of this crate.

pub(crate) mod any_path;
pub(crate) mod atomic_file;
pub(crate) mod clock;
pub(crate) mod counters;
pub mod data_dir;
pub(crate) mod durable;
pub(crate) mod durations;
pub(crate) mod file_limit;
pub(crate) mod frame_io;
#[cfg(test)]
pub(crate) mod namespace;
pub(crate) mod place_table;
pub(crate) mod places;
pub(crate) mod rate_limit;
pub mod secret_text;
pub(crate) mod sparse;
pub(crate) mod stamp;
pub mod traffic;
pub mod umask;
