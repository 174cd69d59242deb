//! Noticing that files have changed: a watcher that the system tells, or that has to look now and then where it does not; and when they have
//! come to rest.
//!
//! What it is not: knowledge of what has changed. Whoever is told reads the folder again.

mod settling;
mod watcher;

pub use self::{
    settling::{LONGEST_UNREST, QUIET, Settling},
    watcher::{TreeWatcher, WatchMeans},
};
