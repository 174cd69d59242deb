//! The relays that this node may use: configured ones first, then found ones; the fastest first, those that failed lately last.
//!
//! ```text
//! configured, well    found, well         configured, failed lately    found, failed lately
//! each group by how fast its servers answered last; one that was never asked counts as neither fast nor slow
//! ```
//! The node asks a few at the same time, and uses the first that answers. Found ones wait a moment if there is a configured one that
//! has not failed.
//!
//! What it is not: a search for relays; whoever finds some calls [`Relays::set_found`], with addresses that may be dialled.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use keyferry_turn::client::Ending;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{
    AddressFamily, Allocation, TurnError, TurnServer,
    ranking::{MAX_CONFIGURED, MAX_FOUND, Record, ServerRank, Servers},
};

/// How many servers to ask at the same time.
const PARALLEL: usize = 3;
/// How long found servers wait for configured ones.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long to wait for a search to find a first relay if none is known.
const FIND_PATIENCE: Duration = Duration::from_millis(2500);
/// How long servers may take to answer a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// How many servers to probe.
const MAX_PROBED: usize = 8;

/// The relays that this node may use. Clones are the same relays.
#[derive(Debug, Clone, Default)]
pub struct Relays {
    shared: Arc<SharedRelays>,
}

#[derive(Default)]
struct SharedRelays {
    servers: Mutex<Servers>,
    /// Who looks for relays, if anybody does.
    search: OnceLock<Box<dyn RelaySearch>>,
    found: Notify,
}

/// Whoever looks for relays. What it finds goes to [`Relays::set_found`].
pub trait RelaySearch: Send + Sync {
    /// Hears that relays are wanted now.
    fn want(&self);

    /// Hears of all found servers that have failed lately, each time that one more has.
    fn have_failed(&self, servers: &[TurnServer]);
}

impl fmt::Debug for SharedRelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let search = if self.search.get().is_some() { "on" } else { "off" };
        f.debug_struct("Shared").field("servers", &self.servers).field("search", &search).finish_non_exhaustive()
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
    /// There is none to ask.
    #[error("no relay is known")]
    None,
    /// All have failed.
    #[error("no relay can be used:{}", failed.iter().map(|(server, why)| format!(" {server}: {why};")).collect::<String>())]
    Failed {
        /// Each server, and why.
        failed: Vec<(String, TurnError)>,
    },
}

/// Whoever makes allocations on the relays that this node may use.
pub trait RelayAllocator: Send + Sync {
    /// Whether no relay is known.
    fn is_empty(&self) -> bool;
    /// Makes an allocation on the relay that answers first.
    fn allocate(&self, family: AddressFamily) -> BoxFuture<'static, Result<Allocation, RelaysError>>;
}

impl Relays {
    /// Starts with the servers that the user has named.
    pub fn new(configured: Vec<TurnServer>) -> Self {
        let servers = Mutex::new(Servers::new(configured));
        Self { shared: Arc::new(SharedRelays { servers, ..SharedRelays::default() }) }
    }

    /// Sets who looks for relays. Only the first call counts.
    pub fn search_by(&self, search: impl RelaySearch + 'static) {
        let _ = self.shared.search.set(Box::new(search));
    }

    /// Replaces all found servers by these. What the node remembers of those that stay is kept.
    pub fn set_found(&self, found: Vec<TurnServer>) {
        self.shared.lock().set_found(found);
        self.shared.found.notify_waiters();
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.shared.lock().is_empty()
    }

    /// All of them, in the order in which the node would ask them.
    pub fn ranked(&self) -> Vec<TurnServer> {
        self.shared.lock().ranked(None).into_iter().map(|(_, server)| server).collect()
    }

    /// What is known of each, in the order in which the node would ask them.
    pub fn reports(&self) -> Vec<RelayReport> {
        let mut servers = self.shared.lock();
        let ranked = servers.ranked(None);
        let report = |(rank, server): (ServerRank, TurnServer)| {
            let Record { answered, failure, allocations, .. } = servers.record(&server)?.clone();
            Some(RelayReport { server: server.to_string(), found: rank.found, answered, failure, allocations })
        };
        ranked.into_iter().filter_map(report).collect()
    }

    /// Asks the best servers for an allocation, only to see which would give one.
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
        // Of one that has not answered by then, the report says what was known before.
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
        let mut waiting = self.shared.lock().ranked(Some(family)).into_iter().peekable();
        let found_from = match waiting.peek() {
            Some((ServerRank { found: false, failed: false }, _)) => Instant::now() + HEAD_START,
            _ => Instant::now(),
        };
        let (mut asked, mut failed) = (FuturesUnordered::new(), Vec::new());
        while wanted > 0 && !out.is_closed() {
            let may_start = |next: Option<&(ServerRank, TurnServer)>, asked: usize| {
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
                        // If nobody waits any more, dropping it gives it back.
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

    /// Says that relays are wanted, and waits for one if none is known.
    async fn search(&self) {
        let Some(search) = self.shared.search.get() else { return };
        let found = self.shared.found.notified();
        search.want();
        if self.is_empty() {
            let _ = timeout(FIND_PATIENCE, found).await;
        }
    }

    async fn ask(&self, server: TurnServer, family: AddressFamily) -> (String, Result<Allocation, TurnError>) {
        let started = Instant::now();
        let result = Allocation::make(&server, family).await;
        match &result {
            Ok(allocation) => {
                self.shared.note(&server, |record| {
                    record.answer(started.elapsed());
                    record.allocations += 1;
                });
                self.watch(&server, allocation);
            }
            Err(error) => {
                tracing::warn!(%server, %error, "a relay cannot be used");
                self.shared.note(&server, |record| record.fail(family, error));
                self.shared.tell_of_failures();
            }
        }
        (server.to_string(), result)
    }

    /// Remembers it if the server loses the allocation.
    fn watch(&self, server: &TurnServer, allocation: &Allocation) {
        let (shared, server) = (Arc::downgrade(&self.shared), server.clone());
        let mut ended = allocation.lease().watch();
        tokio::spawn(async move {
            let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| *ending);
            let Some(shared) = shared.upgrade() else { return };
            let loss = ending.filter(|ending| *ending != Ending::Released);
            shared.note(&server, |record| {
                record.allocations = record.allocations.saturating_sub(1);
                if let Some(ending) = &loss {
                    record.lose(ending.to_string());
                }
            });
            if loss.is_some() {
                shared.tell_of_failures();
            }
        });
    }
}

impl RelayAllocator for Relays {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn allocate(&self, family: AddressFamily) -> BoxFuture<'static, Result<Allocation, RelaysError>> {
        let relays = self.clone();
        async move { Self::allocate(&relays, family).await }.boxed()
    }
}

impl SharedRelays {
    fn note(&self, server: &TurnServer, change: impl FnOnce(&mut Record)) {
        self.lock().record(server).map(change);
    }

    /// Tells who looks for relays which of the found ones do not work.
    fn tell_of_failures(&self) {
        let Some(search) = self.search.get() else { return };
        let failed = self.lock().failed_found();
        if !failed.is_empty() {
            search.have_failed(&failed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[tokio::test]
    async fn who_looks_for_relays_is_told_which_of_the_found_ones_do_not_work() {
        struct Looking(std::sync::mpsc::Sender<Vec<String>>);
        impl RelaySearch for Looking {
            fn want(&self) {}
            fn have_failed(&self, servers: &[TurnServer]) {
                let _ = self.0.send(servers.iter().map(ToString::to_string).collect());
            }
        }
        let (told, heard) = std::sync::mpsc::channel();
        let relays = Relays::new(vec![TurnServer::new("127.0.0.1", 1, false)]);
        relays.search_by(Looking(told));
        assert!(relays.allocate(AddressFamily::V4).await.is_err());
        assert!(heard.try_recv().is_err(), "the user's own are not for others to replace");

        relays.set_found(vec![TurnServer::new("127.0.0.1", 2, false), TurnServer::new("127.0.0.1", 2, true)]);
        assert!(relays.allocate(AddressFamily::V4).await.is_err());

        let last = heard.try_iter().last().expect("both have failed");
        assert_eq!(last, ["turn:127.0.0.1:2", "turns:127.0.0.1:2"]);
    }
}
