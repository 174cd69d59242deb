//! How many files and connections this process may have open.
//!
//! What it is not: limits of what peers may take of them; each place has its own.

/// Raises the limit to what the system allows: connections, sessions and files that are sent are together more than the usual 1024, and
/// so many that are open leave nobody else in.
pub(crate) fn raise() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}
