//! What is counted of serving.

use crate::base::counters::counters;

counters! {
    /// What was served, and what could not be.
    pub struct ServeCounters {
        /// Requests that were malformed or late.
        pub bad_requests = "requests_malformed",
        /// Requests for what is not here.
        pub not_found = "requests_not_found",
        /// Files that changed or vanished since they were shared, or could not be read.
        pub changed_sources = "sources_changed",
        /// Requests for which there was no place in time.
        pub refused_busy = "requests_refused_busy",
        /// Answers that ended because another one got their place.
        pub pushed_out = "answers_pushed_out",
    }
}
