//! Looking for twins of this node (`crate::net::twins`): others that run with its own key.
//!
//! An offer under the own key that this node has not published is no proof: a former run may have left it. Whoever is where it leads to is
//! one, if it proves the key: both sides then know it at once. So each such offer is followed, by dialling and by calling; what leads back to
//! this node itself is nobody.
//!
//! What it is not: what the owner is told (`crate::node`).

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, join, join_all},
    stream::{FuturesUnordered, SelectAll},
};
use keyferry_proto::{
    dialling::Sought,
    offer::{MAX_LIFETIME, MAX_SIGNALLING},
    signalling::Streams,
};
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep_until, timeout},
};

use super::{
    Finder,
    offers::{FoundOffer, Ways, ways_to},
    resolve_hints,
};
use crate::{
    base::{
        clock,
        rate_limit::{Bucket, Rate},
    },
    connect::signalling::{CallError, FreeLine},
    net::{path::AddressPolicy, twins::TwinEncounter},
    reach::rendezvous::{CallOver, RendezvousStatus},
};

/// How often to look whether an offer of a twin is there.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long after the first offer of this node was put to look once more: a twin that has started at the same moment has put its own.
const LOOK_AFTER_FIRST: Duration = Duration::from_secs(5);
/// How often to look because nodes are met.
const LOOKS_FOR_NEW_PEERS: Rate = Rate { burst: 4, interval: Duration::from_secs(5 * 60) };
/// Looks that may be under way at once.
const MAX_LOOKS: usize = 4;
/// Offers that may be followed at once; what is found meanwhile is found again.
const MAX_FOLLOWED: usize = 2;
/// How long to follow one offer.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(20);
/// How long to look when the owner asks for the own key.
const SEEK_DEADLINE: Duration = Duration::from_secs(3);
/// Numbers of own offers that are remembered: those of longer than the offers hold, at the usual pace.
const MAX_NUMBERS: usize = 64;
/// Nobody has an offer any more that was put before this node has started, when it has run for so long.
const FORMER_OFFERS_GONE: Duration = MAX_LIFETIME;

/// The sequence numbers of the offers of this node. Clones are the same list.
#[derive(Debug, Clone)]
pub(crate) struct OwnNumbers {
    list: Arc<Mutex<NumberList>>,
    is_published: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
struct NumberList {
    /// The last one of earlier runs on this data folder.
    before: u64,
    /// Those of this run, in ascending order.
    given: VecDeque<u64>,
}

/// What an offer under the own key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnKeyOffer {
    /// This node has made it.
    Ours,
    /// A former run may have left it, from before a backup was restored; or a twin has made it.
    Doubtful,
    /// A twin has made it.
    OfTwin,
}

impl OwnNumbers {
    /// The list of a run; `before` is the last number of those before it.
    pub(crate) fn after(before: u64) -> Self {
        let list = NumberList { before, given: VecDeque::new() };
        Self { list: Arc::new(Mutex::new(list)), is_published: Arc::new(watch::Sender::new(false)) }
    }

    /// Notes a number that is about to be used.
    pub(crate) fn give(&self, number: u64) {
        let mut list = self.list();
        list.given.push_back(number);
        if list.given.len() > MAX_NUMBERS {
            list.given.pop_front();
        }
        drop(list);
        self.is_published.send_if_modified(|before| !std::mem::replace(before, true));
    }

    /// What an offer is that is found when this node has run for some time.
    fn judge(&self, number: u64, running: Duration) -> OwnKeyOffer {
        let list = self.list();
        let is_newest = list.given.back().is_some_and(|last| number > *last);
        match number == list.before || list.given.contains(&number) {
            true => OwnKeyOffer::Ours,
            false if is_newest && running > FORMER_OFFERS_GONE => OwnKeyOffer::OfTwin,
            false => OwnKeyOffer::Doubtful,
        }
    }

    fn list(&self) -> MutexGuard<'_, NumberList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Finder {
    /// Looks for twins until it is dropped. The first look begins with this call: what is put later takes the place of a twin's offer.
    pub(crate) fn watch_for_twins(self, numbers: OwnNumbers) -> BoxFuture<'static, ()> {
        let first = self.look();
        async move {
            let (started, mut published) = (Instant::now(), numbers.is_published.subscribe());
            let mut status = self.rendezvous.status();
            let mut peers = KnownPeers::of(&status.borrow_and_update());
            let mut for_peers = Bucket::default();
            let mut looks = SelectAll::new();
            looks.push(first);
            let mut followed = FuturesUnordered::new();
            let mut next_look = started + LOOK_EVERY;
            loop {
                let mut is_due = false;
                tokio::select! {
                    Some(found) = looks.next() => {
                        let FoundOffer::Ways(ways) = found else { continue };
                        let judged = numbers.judge(ways.sequence, started.elapsed());
                        tracing::debug!(?judged, "an offer under the own key was found");
                        if judged == OwnKeyOffer::OfTwin {
                            self.met(TwinEncounter::Published);
                        }
                        if judged != OwnKeyOffer::Ours && followed.len() < MAX_FOLLOWED {
                            followed.push(self.follow(ways));
                        }
                    }
                    Some(()) = followed.next() => {}
                    Ok(()) = published.changed() => {
                        next_look = next_look.min(Instant::now() + LOOK_AFTER_FIRST);
                    }
                    Ok(()) = status.changed() => {
                        let known = KnownPeers::of(&status.borrow_and_update());
                        is_due = known.are_new_after(peers) && for_peers.take(LOOKS_FOR_NEW_PEERS, Instant::now());
                        peers = known;
                    }
                    () = sleep_until(next_look.into()) => {
                        is_due = true;
                        next_look = Instant::now() + LOOK_EVERY;
                    }
                }
                if is_due && looks.len() < MAX_LOOKS {
                    looks.push(self.look());
                }
            }
        }
        .boxed()
    }

    /// Whether there is a twin: where hints lead to, or an offer that is found now.
    pub(crate) async fn seek_twin(&self, hints: &[Multiaddr]) -> bool {
        let is_met = || self.tls.twins().meeting(Instant::now()).is_some();
        let mut looks = self.look();
        let seek = async {
            self.dial_twin(Vec::new(), hints).await;
            while let Some(found) = looks.next().await {
                if is_met() {
                    return;
                }
                if let FoundOffer::Ways(ways) = found {
                    self.follow(ways).await;
                }
            }
        };
        let _ = timeout(SEEK_DEADLINE, seek).await;
        is_met()
    }

    fn look(&self) -> TwinLook {
        TwinLook(ways_to(&self.rendezvous, self.tls.node(), self.relay_mode))
    }

    /// Tries to meet whoever has published an offer. If that is a twin, it is told by whoever sees the proof.
    async fn follow(&self, ways: Ways) {
        let circuits = ways.circuits.iter().take(MAX_SIGNALLING);
        let calls = join_all(circuits.map(|circuit| self.call_twin(circuit)));
        let _ = timeout(FOLLOW_DEADLINE, join(self.dial_twin(ways.passive.clone(), &[]), calls)).await;
    }

    async fn dial_twin(&self, offered: Vec<SocketAddr>, hints: &[Multiaddr]) {
        let Ok(policy) = AddressPolicy::for_listeners(self.port.local_addrs()) else { return };
        let admitted = policy.admit(&offered, &resolve_hints(hints, self.relay_mode).await);
        // No session comes of it, whoever is there.
        let ended = self.attempt(admitted, policy, Sought::Node(self.tls.node()), |_| {}).await;
        tracing::debug!(why = ?ended.err(), "the own key was dialled");
    }

    async fn call_twin(&self, circuit: &Multiaddr) {
        // A node that hides its address takes no call but over the circuit.
        for over in [CallOver::Any, CallOver::Circuit] {
            let Ok(line) = FreeLine::open(&self.rendezvous, circuit, over).await else { continue };
            let is_circuit = line.is_circuit();
            // It says nothing of where this node is.
            let called = line.call(self.tls.node(), &self.caller.secret, Streams::Relayed).await;
            match called {
                Err(CallError::Refused(_)) => return self.met(TwinEncounter::Called),
                _ if is_circuit => return,
                _ => {}
            }
        }
    }

    fn met(&self, by: TwinEncounter) {
        self.tls.twins().met(by, Instant::now(), clock::now());
    }
}

/// One look for offers under the own key.
struct TwinLook(mpsc::Receiver<FoundOffer>);

impl Stream for TwinLook {
    type Item = FoundOffer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FoundOffer>> {
        self.0.poll_recv(context)
    }
}

/// How many peers there are to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KnownPeers {
    wan: usize,
    lan: usize,
}

impl KnownPeers {
    fn of(status: &RendezvousStatus) -> Self {
        Self { wan: status.wan_peers, lan: status.lan_peers }
    }

    /// Whether somebody is there who was not, and may be a twin or know one: each in the network nearby, and the first of the wide one.
    fn are_new_after(self, before: Self) -> bool {
        self.lan > before.lan || (self.wan > 0 && before.wan == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn offers_of_this_run_and_the_last_one_before_it_are_ours() {
        let numbers = OwnNumbers::after(100);
        assert_eq!(numbers.judge(100, SOON), OwnKeyOffer::Ours);
        for number in 200..220 {
            numbers.give(number);
            assert_eq!(numbers.judge(number, SOON), OwnKeyOffer::Ours);
        }
        assert_eq!(numbers.judge(200, SOON), OwnKeyOffer::Ours);
        for other in [50, 101, 300] {
            assert_eq!(numbers.judge(other, SOON), OwnKeyOffer::Doubtful, "{other}");
        }
    }

    #[test]
    fn a_newer_offer_than_ours_is_of_a_twin_once_those_of_former_runs_are_gone() {
        let (numbers, late) = (OwnNumbers::after(100), FORMER_OFFERS_GONE + SOON);
        assert_eq!(numbers.judge(300, late), OwnKeyOffer::Doubtful, "nothing is published, so that nothing is newer");
        numbers.give(200);
        assert_eq!(numbers.judge(300, FORMER_OFFERS_GONE), OwnKeyOffer::Doubtful);
        assert_eq!(numbers.judge(300, late), OwnKeyOffer::OfTwin);
        assert_eq!(numbers.judge(150, late), OwnKeyOffer::Doubtful, "an older one may have lain somewhere");
    }

    #[test]
    fn numbers_that_are_remembered_are_bounded() {
        let numbers = OwnNumbers::after(0);
        (1..=MAX_NUMBERS as u64 + 1).for_each(|number| numbers.give(number));
        assert_eq!(numbers.list().given.len(), MAX_NUMBERS);
        assert_eq!(numbers.judge(1, SOON), OwnKeyOffer::Doubtful);
    }

    #[test]
    fn whoever_comes_nearby_is_looked_at_and_of_the_wide_network_the_first() {
        let known = |wan, lan| KnownPeers { wan, lan };
        assert!(known(1, 0).are_new_after(known(0, 0)) && known(5, 3).are_new_after(known(5, 2)));
        assert!(!known(6, 2).are_new_after(known(5, 2)) && !known(0, 0).are_new_after(known(3, 3)));
    }
}
