//! The relays that this node may use: configured ones first, then found ones; the fastest first, those that failed lately last.
//!
//! ```text
//! configured, well    found, well         configured, failed lately    found, failed lately
//! by how fast they answered last; those that have not been asked yet as if they were neither fast nor slow
//! ```
//! A few are asked at the same time, and the first that answers is used. Found ones wait a moment where there is a configured one that
//! has not failed.
//!
//! What it is not: a search for relays; whoever finds some calls [`Relays::set_found`] or [`Relays::add_found`], with addresses that may
//! be dialled.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use keyferry_proto::turn::client::Ending;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{AddressFamily, Allocation, TurnError, TurnServer};

/// Configured servers that are kept; more are left out.
pub const MAX_CONFIGURED: usize = 16;
/// Found servers that are kept; the oldest gives way to a new one.
pub const MAX_FOUND: usize = 32;

/// Servers that are asked at the same time.
const PARALLEL: usize = 3;
/// How long found servers wait for configured ones.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long a server that has failed is among the last; doubled with each further failure, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long is waited for a first relay to be found where none is known.
const FIND_PATIENCE: Duration = Duration::from_millis(2500);
/// How long servers that are only looked at may take to answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// How many are looked at.
const MAX_PROBED: usize = 8;
/// What a server that has not been asked yet is taken to need for its answer.
const UNKNOWN_ANSWER: Duration = Duration::from_millis(150);

/// The relays that this node may use. Clones are the same relays.
#[derive(Debug, Clone, Default)]
pub struct Relays {
    servers: Arc<Mutex<Servers>>,
    search: Arc<Search>,
}

/// The search for relays that are found.
#[derive(Default)]
struct Search {
    /// Says that relays are wanted; none where nobody looks for any.
    want: OnceLock<Box<dyn Fn() + Send + Sync>>,
    found: Notify,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({})", if self.want.get().is_some() { "on" } else { "off" })
    }
}

/// What is known of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReport {
    /// Its URI, without credentials.
    pub server: String,
    /// Whether it was found rather than configured.
    pub found: bool,
    /// How long it took to give an allocation, last time.
    pub answered: Option<Duration>,
    /// Why it has given none since, if so.
    pub failure: Option<String>,
    /// Allocations that this node has there.
    pub allocations: usize,
}

/// Why no relay has given an allocation.
#[derive(Debug, thiserror::Error)]
pub enum RelaysError {
    /// There is none to be asked.
    #[error("no relay is known")]
    None,
    /// All have failed.
    #[error("no relay can be used:{}", failed.iter().map(|(server, why)| format!(" {server}: {why};")).collect::<String>())]
    Failed {
        /// Each server, and why.
        failed: Vec<(String, TurnError)>,
    },
}

#[derive(Debug, Default)]
struct Servers {
    configured: Vec<Entry>,
    found: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    server: TurnServer,
    record: Record,
}

/// What is remembered of a server.
#[derive(Debug, Clone, Default)]
struct Record {
    /// How long it took from the first packet to the allocation, last time.
    answered: Option<Duration>,
    failures: u32,
    failure: Option<String>,
    allocations: usize,
    failed_at: Option<Instant>,
    lacks_v4: bool,
    lacks_v6: bool,
}

impl Relays {
    /// Those that the user has named.
    pub fn new(configured: Vec<TurnServer>) -> Self {
        let relays = Self::default();
        let mut servers = relays.lock();
        for server in configured {
            if servers.entry(&server).is_none() && servers.configured.len() < MAX_CONFIGURED {
                servers.configured.push(Entry::new(server));
            }
        }
        drop(servers);
        relays
    }

    /// Has `want` called whenever an allocation is asked for; what it finds comes by [`Self::set_found`]. Once.
    pub fn search_by(&self, want: impl Fn() + Send + Sync + 'static) {
        let _ = self.search.want.set(Box::new(want));
    }

    /// Takes these in place of all that have been found. What is remembered of those that stay is kept.
    pub fn set_found(&self, found: Vec<TurnServer>) {
        let mut servers = self.lock();
        let before = std::mem::take(&mut servers.found);
        for server in found.into_iter().take(MAX_FOUND) {
            if servers.entry(&server).is_none() {
                let record =
                    before.iter().find(|entry| entry.server.is_same(&server)).map(|entry| entry.record.clone());
                servers.found.push(Entry { server, record: record.unwrap_or_default() });
            }
        }
        drop(servers);
        self.search.found.notify_waiters();
    }

    /// Adds one that has been found. Where it is known already, it takes the place of the old one, with its newer password.
    pub fn add_found(&self, server: TurnServer) {
        let mut servers = self.lock();
        if servers.configured.iter().any(|entry| entry.server.is_same(&server)) {
            return;
        }
        if let Some(known) = servers.found.iter_mut().find(|entry| entry.server.is_same(&server)) {
            known.server = server;
            return;
        }
        if servers.found.len() >= MAX_FOUND {
            servers.found.remove(0);
        }
        servers.found.push(Entry::new(server));
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        let servers = self.lock();
        servers.configured.is_empty() && servers.found.is_empty()
    }

    /// All of them, the one to be asked first at the beginning.
    pub fn ranked(&self) -> Vec<TurnServer> {
        self.lock().ranked(None).into_iter().map(|(_, server)| server).collect()
    }

    /// What is known of each, the one to be asked first at the beginning.
    pub fn reports(&self) -> Vec<RelayReport> {
        let mut servers = self.lock();
        let ranked = servers.ranked(None);
        let report = |(rank, server): (Rank, TurnServer)| {
            let Record { answered, failure, allocations, .. } = servers.entry(&server)?.record.clone();
            Some(RelayReport { server: server.to_string(), found: rank.found, answered, failure, allocations })
        };
        ranked.into_iter().filter_map(report).collect()
    }

    /// Asks each of the best for an allocation, only to see whether it would give one.
    pub async fn probe(&self) -> Vec<RelayReport> {
        let servers: Vec<TurnServer> = self.ranked().into_iter().take(MAX_PROBED).collect();
        let probes = servers.into_iter().map(|server| async move {
            let (name, answer) = self.ask(server.clone(), AddressFamily::V4).await;
            if matches!(&answer, Err(error) if error.lacks_family()) {
                return self.ask(server, AddressFamily::V6).await;
            }
            (name, answer)
        });
        let mut probes: FuturesUnordered<_> = probes.collect();
        let all = async { while probes.next().await.is_some() {} };
        // One that has not answered by then is told of as it is known.
        let _ = timeout(PROBE_PATIENCE, all).await;
        self.reports()
    }

    /// Asks the best few for an allocation of this family, and takes the first that stands. Those that answer later are given back.
    pub async fn allocate(&self, family: AddressFamily) -> Result<Allocation, RelaysError> {
        let (out, mut first) = mpsc::channel(1);
        let failed = self.gather(family, 1, out).await;
        match first.try_recv() {
            Ok(allocation) => Ok(allocation),
            Err(_) if failed.is_empty() => Err(RelaysError::None),
            Err(_) => Err(RelaysError::Failed { failed }),
        }
    }

    /// Asks the best few for allocations of this family, until this many stand. They come as they stand; the end means that there are
    /// no more. Dropping the receiver ends the search.
    pub fn allocations(&self, family: AddressFamily, wanted: usize) -> mpsc::Receiver<Allocation> {
        let (out, allocations) = mpsc::channel(wanted.clamp(1, MAX_CONFIGURED + MAX_FOUND));
        let relays = self.clone();
        tokio::spawn(async move { relays.gather(family, wanted, out).await });
        allocations
    }

    /// Returns those that have failed.
    async fn gather(
        &self,
        family: AddressFamily,
        mut wanted: usize,
        out: mpsc::Sender<Allocation>,
    ) -> Vec<(String, TurnError)> {
        self.search().await;
        let mut waiting = self.lock().ranked(Some(family)).into_iter().peekable();
        let found_from = match waiting.peek() {
            Some((Rank { found: false, failed: false }, _)) => Instant::now() + HEAD_START,
            _ => Instant::now(),
        };
        let (mut asked, mut failed) = (FuturesUnordered::new(), Vec::new());
        while wanted > 0 && !out.is_closed() {
            let may_start = |next: Option<&(Rank, TurnServer)>, asked: usize| {
                let is_held = next.is_some_and(|(rank, _)| rank.found && asked > 0 && Instant::now() < found_from);
                next.is_some() && asked < PARALLEL && !is_held
            };
            while may_start(waiting.peek(), asked.len()) {
                asked.extend(waiting.next().map(|(_, server)| self.ask(server, family)));
            }
            let waits = waiting.peek().is_some() && asked.len() < PARALLEL;
            tokio::select! {
                answer = asked.next() => match answer {
                    Some((_, Ok(allocation))) => {
                        wanted -= 1;
                        // Nobody waits any more: it is given back.
                        let _ = out.try_send(allocation);
                    }
                    Some((server, Err(error))) => failed.push((server, error)),
                    None => break,
                },
                () = sleep_until(found_from), if waits => {}
                () = out.closed() => break,
            }
        }
        failed
    }

    /// Says that relays are wanted, and waits for one where none is known.
    async fn search(&self) {
        let Some(want) = self.search.want.get() else { return };
        let found = self.search.found.notified();
        want();
        if self.is_empty() {
            let _ = timeout(FIND_PATIENCE, found).await;
        }
    }

    async fn ask(&self, server: TurnServer, family: AddressFamily) -> (String, Result<Allocation, TurnError>) {
        let started = Instant::now();
        let result = Allocation::make(&server, family).await;
        match &result {
            Ok(allocation) => {
                self.note(&server, |record| {
                    record.answer(started.elapsed());
                    record.allocations += 1;
                });
                self.watch(&server, allocation);
            }
            Err(error) => {
                tracing::warn!(%server, %error, "a relay cannot be used");
                self.note(&server, |record| record.fail(family, error));
            }
        }
        (server.to_string(), result)
    }

    /// Remembers it if the server loses the allocation.
    fn watch(&self, server: &TurnServer, allocation: &Allocation) {
        let (relays, server) = (Arc::downgrade(&self.servers), server.clone());
        let mut ended = allocation.lease().watch();
        tokio::spawn(async move {
            let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| *ending);
            let Some(servers) = relays.upgrade() else { return };
            note(&servers, &server, |record| {
                record.allocations = record.allocations.saturating_sub(1);
                if let Some(ending) = ending.filter(|ending| *ending != Ending::Released) {
                    record.failure = Some(ending.to_string());
                    record.lose();
                }
            });
        });
    }

    fn note(&self, server: &TurnServer, change: impl FnOnce(&mut Record)) {
        note(&self.servers, server, change);
    }

    fn lock(&self) -> MutexGuard<'_, Servers> {
        lock(&self.servers)
    }
}

fn note(servers: &Mutex<Servers>, server: &TurnServer, change: impl FnOnce(&mut Record)) {
    if let Some(entry) = lock(servers).entry(server) {
        change(&mut entry.record);
    }
}

fn lock(servers: &Mutex<Servers>) -> MutexGuard<'_, Servers> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In which of four groups a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    found: bool,
    failed: bool,
}

impl Servers {
    fn entry(&mut self, server: &TurnServer) -> Option<&mut Entry> {
        let Self { configured, found } = self;
        configured.iter_mut().chain(found).find(|entry| entry.server.is_same(server))
    }

    /// Those that have an address of this family, best first.
    fn ranked(&self, family: Option<AddressFamily>) -> Vec<(Rank, TurnServer)> {
        let now = Instant::now();
        let configured = self.configured.iter().map(|entry| (false, entry));
        let all = configured.chain(self.found.iter().map(|entry| (true, entry)));
        let mut all: Vec<(Rank, &Entry)> = all
            .filter(|(_, entry)| !family.is_some_and(|family| entry.record.lacks(family)))
            .map(|(found, entry)| (Rank { found, failed: entry.record.is_paused(now) }, entry))
            .collect();
        all.sort_by_key(|(rank, entry)| (rank.failed, rank.found, entry.record.answered.unwrap_or(UNKNOWN_ANSWER)));
        all.into_iter().map(|(rank, entry)| (rank, entry.server.clone())).collect()
    }
}

impl Entry {
    fn new(server: TurnServer) -> Self {
        Self { server, record: Record::default() }
    }
}

impl Record {
    fn answer(&mut self, took: Duration) {
        (self.answered, self.failures, self.failed_at, self.failure) = (Some(took), 0, None, None);
    }

    fn fail(&mut self, family: AddressFamily, error: &TurnError) {
        match family {
            AddressFamily::V4 if error.lacks_family() => self.lacks_v4 = true,
            AddressFamily::V6 if error.lacks_family() => self.lacks_v6 = true,
            AddressFamily::V4 | AddressFamily::V6 => {
                self.failure = Some(error.to_string());
                self.lose();
            }
        }
    }

    fn lose(&mut self) {
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

impl fmt::Display for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.ranked().iter().map(ToString::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> TurnServer {
        TurnServer::new(name, 3478, false)
    }

    fn names(relays: &Relays) -> String {
        relays.ranked().iter().map(|server| server.host.clone()).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn the_fastest_configured_comes_first_and_what_failed_lately_last() {
        let relays = Relays::new(vec![server("slow"), server("fast"), server("new"), server("dead")]);
        relays.set_found(vec![server("found"), server("quick"), server("fast")]);
        relays.note(&server("slow"), |record| record.answer(Duration::from_millis(900)));
        relays.note(&server("fast"), |record| record.answer(Duration::from_millis(20)));
        relays.note(&server("quick"), |record| record.answer(Duration::from_millis(1)));
        relays.note(&server("dead"), Record::lose);
        assert_eq!(names(&relays), "fast new slow quick found dead");
        tokio::time::advance(PAUSE).await;
        assert_eq!(names(&relays), "fast new dead slow quick found");
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_waits_longer_and_not_for_ever() {
        let relays = Relays::new(vec![server("a"), server("b")]);
        for _ in 0..40 {
            relays.note(&server("a"), Record::lose);
        }
        tokio::time::advance(MAX_PAUSE - Duration::from_secs(1)).await;
        assert_eq!(names(&relays), "b a");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(names(&relays), "a b");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_remembered() {
        let many = |prefix: &'static str| (0..100).map(move |i| server(&format!("{prefix}{i}"))).collect::<Vec<_>>();
        let relays = Relays::new(many("c"));
        relays.set_found(many("f"));
        assert_eq!(relays.ranked().len(), MAX_CONFIGURED + MAX_FOUND);
        relays.note(&server("f7"), Record::lose);
        relays.set_found(vec![server("f7"), server("g")]);
        assert!(names(&relays).ends_with("g f7"));
        many("h").into_iter().for_each(|server| relays.add_found(server));
        assert_eq!(relays.ranked().len(), MAX_CONFIGURED + MAX_FOUND);
    }

    #[tokio::test]
    async fn without_relays_there_is_no_allocation() {
        let relays = Relays::default();
        assert!(relays.is_empty());
        assert!(matches!(relays.allocate(AddressFamily::V4).await, Err(RelaysError::None)));
        assert!(relays.allocations(AddressFamily::V4, 2).recv().await.is_none());
    }

    #[tokio::test]
    async fn when_all_fail_each_says_why() {
        // Nobody listens on port 1 of this machine.
        let relays = Relays::new(vec![TurnServer::new("127.0.0.1", 1, false), TurnServer::new("::1", 1, true)]);
        let error = relays.allocate(AddressFamily::V4).await.unwrap_err().to_string();
        assert!(error.contains("turn:127.0.0.1:1: no connection") && error.contains("turns:[::1]:1"), "{error}");
    }

    #[tokio::test]
    async fn what_is_told_of_a_relay_is_what_came_of_asking_it() {
        let relays = Relays::new(vec![TurnServer::new("127.0.0.1", 1, false)]);
        let not_asked = RelayReport {
            server: "turn:127.0.0.1:1".to_owned(),
            found: false,
            answered: None,
            failure: None,
            allocations: 0,
        };
        assert_eq!(relays.reports(), [not_asked]);

        let probed = relays.probe().await;

        assert!(probed[0].failure.as_ref().is_some_and(|why| why.starts_with("no connection")), "{probed:?}");
        assert_eq!(relays.reports(), probed);
    }
}
