//! Keeps what the DHT says about this node up to date: its offer, and that it has what it shares.
//!
//! What it is not: the DHT (`crate::reach::rendezvous`), or the gathering of candidates (`crate::reach::gather`).

mod schedule;
mod sequence;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_ice::{Candidate, CandidateKind, LocalCandidate, TcpType};
use keyferry_net::time::UtcDay;
use keyferry_proto::{
    identity::NodeSecret,
    offer::{MAX_CANDIDATES, MAX_SIGNALLING, Offer, OfferError, RecordKey, SignedOffer, content_record_key, seal},
};
use libp2p::Multiaddr;
use tokio::sync::{Notify, watch};

use self::schedule::{REPUBLISH_EVERY, Schedule};
pub(super) use self::sequence::Sequence;
use crate::{
    base::clock,
    content::store::Store,
    net::path::RelayMode,
    reach::{
        gather::Gathered,
        rendezvous::{PublishError, Rendezvous},
    },
};

/// How long to wait for further changes of the node's addresses after the first.
const SETTLE: Duration = Duration::from_millis(100);
/// How long the first offer waits for a way in from outside. One that names none would be found and believed by a peer that looks
/// at that moment, and DHTs forget slowly.
const FIRST_OFFER_PATIENCE: Duration = Duration::from_secs(2);
/// How long an offer is good for; a little more than [`REPUBLISH_EVERY`] would do, but a node may sleep. Its record expires up to
/// [`keyferry_proto::offer::MAX_EARLY`] before it.
const OFFER_LIFETIME: Duration = Duration::from_secs(90 * 60);
/// Roots that a node announces by their hash; further ones are reached by the node's key alone.
const MAX_ANNOUNCED_ROOTS: usize = crate::reach::rendezvous::MAX_PROVIDED;

/// Why an offer was not published. The network's fault, or this node's own.
#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error(transparent)]
    Rendezvous(#[from] PublishError),
}

/// The task that announces.
pub(crate) struct Announcer {
    pub(crate) gathered: watch::Receiver<Gathered>,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) secret: NodeSecret,
    pub(crate) store: Store,
    /// Signalled when the store's roots have changed.
    pub(crate) roots_changed: Arc<Notify>,
    pub(crate) relay_mode: RelayMode,
    pub(super) sequence: Sequence,
}

/// What an offer says of where the node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reach {
    candidates: Vec<Candidate>,
    circuits: Vec<Multiaddr>,
}

impl Announcer {
    /// Announces for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut announced = HashSet::new();
        let mut schedule = Schedule::default();
        let mut is_first = true;
        let mut status = self.rendezvous.status();
        let may_be_late = Instant::now() + FIRST_OFFER_PATIENCE;
        loop {
            let (reach, is_early) = {
                let (gathered, status) = (self.gathered.borrow_and_update(), status.borrow_and_update());
                let reach = reach(&gathered, &status.circuits, self.relay_mode);
                let is_early = is_first
                    && Instant::now() < may_be_late
                    && expects_more(&reach, status.public, status.connected, status.wan_peers);
                (reach, is_early)
            };
            let mut pause = REPUBLISH_EVERY;
            if is_early {
                pause = may_be_late.saturating_duration_since(Instant::now());
            } else if reach != Reach::default() {
                schedule.update(Instant::now(), clock::now(), &reach, rand::random);
                if let Some((day, due)) = schedule.next()
                    && due <= Instant::now()
                {
                    let published = self.publish(&reach, day).await;
                    schedule.done(Instant::now(), day, published.is_ok(), rand::random());
                    match published {
                        Ok(()) => is_first = false,
                        Err(error) => tracing::debug!(%error, "the offer was not published"),
                    }
                }
                let due = schedule.next().map(|(_, due)| due.saturating_duration_since(Instant::now()));
                pause = due.unwrap_or(REPUBLISH_EVERY);
            }
            self.announce_roots(&mut announced).await;
            tokio::select! {
                () = self.roots_changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                // Changes come in bursts.
                Ok(()) = self.gathered.changed() => tokio::time::sleep(SETTLE).await,
                Ok(()) = status.changed() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// Publishes the offer of a day. Each is signed for its day alone, so that no two records have a sequence or an expiry in common.
    async fn publish(&mut self, reach: &Reach, day: UtcDay) -> Result<(), AnnounceError> {
        let offer = Offer {
            candidates: reach.candidates.clone(),
            signalling: reach.circuits.clone(),
            sequence: self.sequence.next(clock::now_ms()).await,
            expires: clock::now().plus(OFFER_LIFETIME),
        };
        let signed = SignedOffer::sign(offer, &self.secret)?;
        self.rendezvous.publish(seal(&signed, &self.secret, day, rand::random())?).await?;
        tracing::info!(candidates = reach.candidates.len(), circuits = reach.circuits.len(), "published an offer");
        Ok(())
    }

    /// Says who has what is shared: whoever asks for it dials the addresses of the record, so that there is none of a node that
    /// hides its own.
    async fn announce_roots(&self, announced: &mut HashSet<RecordKey>) {
        if !self.relay_mode.allows_direct() {
            return;
        }
        let roots = self.store.roots();
        let wanted: HashSet<RecordKey> =
            roots.iter().take(MAX_ANNOUNCED_ROOTS).map(|root| content_record_key(&root.hash)).collect();
        for key in wanted.difference(announced).copied().collect::<Vec<_>>() {
            if self.rendezvous.provide(key).await.is_ok() {
                announced.insert(key);
            }
        }
        for key in announced.difference(&wanted).copied().collect::<Vec<_>>() {
            self.rendezvous.stop_providing(key).await;
            announced.remove(&key);
        }
    }
}

/// Where this node accepts connections, of all that was gathered, and where it can be called. A node that hides its addresses
/// can only be called.
fn reach(gathered: &Gathered, circuits: &[Multiaddr], relay_mode: RelayMode) -> Reach {
    let circuits = circuits.iter().take(MAX_SIGNALLING).cloned().collect();
    if !relay_mode.allows_direct() {
        return Reach { candidates: Vec::new(), circuits };
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for LocalCandidate { candidate, .. } in &gathered.candidates {
        // The outside may have confirmed the port that the router maps.
        let is_named = candidates.iter().any(|named| named.addr == candidate.addr);
        if candidate.tcp_type == TcpType::Passive && !is_named {
            candidates.push(*candidate);
        }
    }
    candidates.truncate(MAX_CANDIDATES);
    Reach { candidates, circuits }
}

/// Whether a node that has just started will soon know a way in from outside, and knows none yet. One that meets nobody but
/// neighbours needs none.
fn expects_more(reach: &Reach, public: bool, connected: usize, wan_peers: usize) -> bool {
    let is_proven = |candidate: &Candidate| candidate.kind != CandidateKind::Host;
    let has_way = public || !reach.circuits.is_empty() || reach.candidates.iter().any(is_proven);
    !has_way && (connected == 0 || wan_peers > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_offer_waits_for_a_way_in_unless_there_are_only_neighbours() {
        let passive = |kind, addr: &str| Candidate::new(kind, TcpType::Passive, addr.parse().unwrap(), 1);
        let inside = vec![passive(CandidateKind::Host, "192.168.1.10:4600")];
        let mapped = vec![passive(CandidateKind::PortMapped, "192.0.2.7:4600")];
        let inside = Reach { candidates: inside, circuits: Vec::new() };
        let mapped = Reach { candidates: mapped, circuits: Vec::new() };
        let called = Reach { circuits: vec!["/ip4/192.0.2.1/tcp/443".parse().unwrap()], ..inside.clone() };

        assert!(expects_more(&inside, false, 0, 0));
        assert!(expects_more(&inside, false, 2, 2));
        assert!(!expects_more(&inside, false, 1, 0));
        assert!(!expects_more(&inside, true, 2, 2));
        assert!(!expects_more(&mapped, false, 2, 2));
        assert!(!expects_more(&called, false, 2, 2));
    }

    #[test]
    fn an_offer_names_each_address_that_accepts_once() {
        let gathered = |kind, tcp_type, addr: &str| {
            let candidate = Candidate::new(kind, tcp_type, addr.parse().unwrap(), 1);
            LocalCandidate { candidate, base: "192.168.1.10:4600".parse().unwrap() }
        };
        let candidates = vec![
            gathered(CandidateKind::Host, TcpType::Passive, "192.168.1.10:4600"),
            gathered(CandidateKind::PortMapped, TcpType::Passive, "198.51.100.2:4600"),
            gathered(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, "198.51.100.2:700"),
            gathered(CandidateKind::ServerReflexive, TcpType::Passive, "198.51.100.2:4600"),
            gathered(CandidateKind::ServerReflexive, TcpType::Passive, "198.51.100.3:4600"),
        ];

        let reach = reach(&Gathered { candidates, ..Gathered::default() }, &[], RelayMode::Both);

        let named: Vec<_> = reach.candidates.iter().map(|named| (named.kind, named.addr.to_string())).collect();
        let expected = [
            (CandidateKind::Host, "192.168.1.10:4600".to_owned()),
            (CandidateKind::PortMapped, "198.51.100.2:4600".to_owned()),
            (CandidateKind::ServerReflexive, "198.51.100.3:4600".to_owned()),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn the_offer_of_a_node_that_hides_its_addresses_names_only_where_it_can_be_called() {
        let candidate = Candidate::host_passive("192.168.1.10:4600".parse().unwrap(), 1);
        let base = candidate.addr;
        let gathered = Gathered { candidates: vec![LocalCandidate { candidate, base }], ..Gathered::default() };
        let circuits: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/443".parse().unwrap()];

        let shown = reach(&gathered, &circuits, RelayMode::Both);
        let hidden = reach(&gathered, &circuits, RelayMode::RelayOnly);

        assert_eq!((shown.candidates.len(), shown.circuits), (1, circuits.clone()));
        assert_eq!(hidden, Reach { candidates: Vec::new(), circuits });
    }
}
