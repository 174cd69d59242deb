//! Which relays there are, what the node remembers of each, and which one it asks before which.
//!
//! What it is not: asking.

use std::time::Duration;

use tokio::time::Instant;

use super::{AddressFamily, TurnError, TurnServer};

/// How many configured servers to keep; the rest is left out.
pub const MAX_CONFIGURED: usize = 16;
/// How many found servers to keep; the rest is left out.
pub const MAX_FOUND: usize = 32;

/// How long a server that has failed is among the last; doubled with each further failure, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long a server is assumed to take for its first answer.
const UNKNOWN_ANSWER: Duration = Duration::from_millis(150);

/// The servers.
#[derive(Debug, Default)]
pub(super) struct Servers {
    configured: Vec<RankedServer>,
    found: Vec<RankedServer>,
}

#[derive(Debug)]
struct RankedServer {
    server: TurnServer,
    record: Record,
}

/// What the node remembers of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// How long it took from the first packet to the allocation, last time.
    pub(super) answered: Option<Duration>,
    /// Why it has given none since, or has lost one, if so.
    pub(super) failure: Option<String>,
    /// Allocations that stand there.
    pub(super) allocations: usize,
    failures: u32,
    failed_at: Option<Instant>,
    lacks_v4: bool,
    lacks_v6: bool,
}

/// Which of four groups a server is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerRank {
    pub(super) found: bool,
    pub(super) failed: bool,
}

impl Servers {
    /// Starts with the servers that the user has named.
    pub(super) fn new(configured: Vec<TurnServer>) -> Self {
        let mut servers = Self::default();
        for server in configured {
            if servers.configured.len() < MAX_CONFIGURED && servers.record(&server).is_none() {
                servers.configured.push(RankedServer { server, record: Record::default() });
            }
        }
        servers
    }

    /// Replaces all found servers by these. The records of those that stay are kept, even if their password has changed.
    pub(super) fn set_found(&mut self, found: Vec<TurnServer>) {
        let mut before = std::mem::take(&mut self.found);
        for server in found.into_iter().take(MAX_FOUND) {
            let known = self.configured.iter().chain(&self.found).any(|entry| entry.server.is_where(&server));
            if !known {
                let place = before.iter().position(|entry| entry.server.is_where(&server));
                let record = place.map(|place| before.swap_remove(place).record).unwrap_or_default();
                self.found.push(RankedServer { server, record });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.found.is_empty()
    }

    /// The record of a server, if it is known.
    pub(super) fn record(&mut self, server: &TurnServer) -> Option<&mut Record> {
        let configured = self.configured.iter_mut().find(|entry| entry.server.is_same(server));
        // The credentials of found servers run out, and others take their place.
        let entry = configured.or_else(|| self.found.iter_mut().find(|entry| entry.server.is_where(server)));
        entry.map(|entry| &mut entry.record)
    }

    /// The servers that have an address of this family, best first.
    pub(super) fn ranked(&self, family: Option<AddressFamily>) -> Vec<(ServerRank, TurnServer)> {
        let now = Instant::now();
        let configured = self.configured.iter().map(|entry| (false, entry));
        let all = configured.chain(self.found.iter().map(|entry| (true, entry)));
        let mut all: Vec<(ServerRank, &RankedServer)> = all
            .filter(|(_, entry)| !family.is_some_and(|family| entry.record.lacks(family)))
            .map(|(found, entry)| (ServerRank { found, failed: entry.record.is_paused(now) }, entry))
            .collect();
        all.sort_by_key(|(rank, entry)| (rank.failed, rank.found, entry.record.answered.unwrap_or(UNKNOWN_ANSWER)));
        all.into_iter().map(|(rank, entry)| (rank, entry.server.clone())).collect()
    }

    /// The found servers that have failed lately.
    pub(super) fn failed_found(&self) -> Vec<TurnServer> {
        let now = Instant::now();
        let failed = self.found.iter().filter(|entry| entry.record.is_paused(now));
        failed.map(|entry| entry.server.clone()).collect()
    }
}

impl Record {
    /// Notes an allocation, and how long it took.
    pub(super) fn answer(&mut self, took: Duration) {
        (self.answered, self.failures, self.failed_at, self.failure) = (Some(took), 0, None, None);
    }

    /// Notes that there was none.
    pub(super) fn fail(&mut self, family: AddressFamily, error: &TurnError) {
        match family {
            AddressFamily::V4 if error.lacks_family() => self.lacks_v4 = true,
            AddressFamily::V6 if error.lacks_family() => self.lacks_v6 = true,
            AddressFamily::V4 | AddressFamily::V6 => self.lose(error.to_string()),
        }
    }

    /// Notes that the server does not work.
    pub(super) fn lose(&mut self, why: String) {
        self.failure = Some(why);
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(Instant::now());
    }

    fn lacks(&self, family: AddressFamily) -> bool {
        match family {
            AddressFamily::V4 => self.lacks_v4,
            AddressFamily::V6 => self.lacks_v6,
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        let doublings = self.failures.saturating_sub(1).min(8);
        let pause = (PAUSE * (1 << doublings)).min(MAX_PAUSE);
        self.failed_at.is_some_and(|at| now < at + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> TurnServer {
        TurnServer::new(name, 3478, false)
    }

    fn note(servers: &mut Servers, name: &str, change: impl FnOnce(&mut Record)) {
        change(servers.record(&server(name)).expect("it is known"));
    }

    fn lose(record: &mut Record) {
        record.lose("it is gone".to_owned());
    }

    fn names(servers: &Servers) -> String {
        servers.ranked(None).iter().map(|(_, server)| server.host.clone()).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn the_fastest_configured_comes_first_and_what_failed_lately_last() {
        let mut servers = Servers::new(vec![server("slow"), server("fast"), server("new"), server("dead")]);
        servers.set_found(vec![server("found"), server("quick"), server("fast")]);
        note(&mut servers, "slow", |record| record.answer(Duration::from_millis(900)));
        note(&mut servers, "fast", |record| record.answer(Duration::from_millis(20)));
        note(&mut servers, "quick", |record| record.answer(Duration::from_millis(1)));
        note(&mut servers, "dead", lose);
        assert_eq!(names(&servers), "fast new slow quick found dead");
        tokio::time::advance(PAUSE).await;
        assert_eq!(names(&servers), "fast new dead slow quick found");
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_waits_longer_and_not_for_ever() {
        let mut servers = Servers::new(vec![server("a"), server("b")]);
        for _ in 0..40 {
            note(&mut servers, "a", lose);
        }
        tokio::time::advance(MAX_PAUSE - Duration::from_secs(1)).await;
        assert_eq!(names(&servers), "b a");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(names(&servers), "a b");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_remembered() {
        let many = |prefix: &'static str| (0..100).map(move |i| server(&format!("{prefix}{i}"))).collect::<Vec<_>>();
        let mut servers = Servers::new(many("c"));
        servers.set_found(many("f"));
        assert_eq!(servers.ranked(None).len(), MAX_CONFIGURED + MAX_FOUND);
        note(&mut servers, "f7", lose);
        servers.set_found(vec![server("f7"), server("g")]);
        assert!(names(&servers).ends_with("g f7"));
    }

    #[tokio::test]
    async fn what_is_remembered_of_a_found_one_outlives_its_credentials() {
        let as_user = |name: &str| {
            let credentials = keyferry_turn::long_term::UserCredentials::new(name.to_owned(), "p".to_owned());
            server("found").with_credentials(credentials.expect("short enough"))
        };
        let mut servers = Servers::default();
        servers.set_found(vec![as_user("yesterday"), server("other")]);
        servers.record(&as_user("yesterday")).expect("it is known").lose("it is gone".to_owned());
        servers.set_found(vec![as_user("today"), server("other")]);
        assert_eq!(names(&servers), "other found");
        assert_eq!(servers.failed_found().len(), 1);
        assert!(servers.record(&as_user("yesterday")).is_some(), "one that is being asked tells in the end");
    }
}
