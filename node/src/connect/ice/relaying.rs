//! The relays of one negotiation: the allocations that it asks for and has, and what arrives at them.
//!
//! What it is not: TURN (`crate::reach::turn_client`), or the choice among pairs.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::{Candidate, CandidateKind, ConnectFailure, LocalCandidate, TcpType};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    net::path::PathStream,
    reach::{
        gather::Gathered,
        turn_client::{AddressFamily, Allocation, RelayAllocator, RelaysError},
    },
};

/// Allocations that a node has or asks for, at once.
pub(super) const MAX_ALLOCATIONS: usize = 64;
/// How long an allocation may take. What comes later than this comes too late for a negotiation.
const ALLOCATION_PATIENCE: Duration = Duration::from_secs(8);
/// Addresses of the peer for a relay to let in. Both streams together have fewer candidates.
const MAX_PERMITTED: usize = 64;
/// The port of an active candidate (RFC 6544 §4.5).
const DISCARD_PORT: u16 = 9;
/// The greatest of the 13-bit preferences that tell candidates of one kind and type apart (RFC 6544 §4.2).
const MAX_OTHER_PREFERENCE: u16 = 0x1fff;

/// Why a negotiation has no allocation of a family.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// The relays have failed.
    #[error(transparent)]
    Relays(#[from] RelaysError),
    /// No relay has answered while it would have been of use.
    #[error("no relay answers in time")]
    TimedOut,
}

/// What came of asking the relays for an address of a family.
#[derive(Debug)]
pub struct AllocationStep {
    /// The family.
    pub family: AddressFamily,
    /// How long it took.
    pub took: Duration,
    /// The relay that gave one, and the address; or why none has.
    pub outcome: Result<(String, SocketAddr), AllocationError>,
}

/// The steps of one negotiation, as they come. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct AllocationSteps(Arc<Mutex<Vec<AllocationStep>>>);

impl AllocationSteps {
    /// Takes those that nobody has taken yet.
    pub fn take(&self) -> Vec<AllocationStep> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, step: AllocationStep) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

/// An allocation, with its place among those of the node.
pub(super) struct HeldAllocation {
    allocation: Allocation,
    place: OwnedSemaphorePermit,
}

impl HeldAllocation {
    /// What keeps the allocation, and its place, for a path that goes through it.
    pub(super) fn into_lease(self) -> impl Send + Sync + 'static {
        (self.allocation.lease(), self.place)
    }
}

/// The relays of one negotiation.
pub(super) struct Relaying {
    /// Whether to tell the peer no address of this side.
    hidden: bool,
    asked: Option<AskedRelays>,
    held: Vec<HeldAllocation>,
    peers: BTreeSet<IpAddr>,
    steps: AllocationSteps,
}

/// Allocations under way. Dropping it gives them up.
struct AskedRelays {
    made: mpsc::Receiver<HeldAllocation>,
    _tasks: JoinSet<()>,
}

/// What has happened at the relays.
pub(super) enum RelayEvent {
    /// There is one allocation more, or there will be no more.
    Allocated,
    /// A peer has connected.
    Accepted { stream: PathStream, relayed: SocketAddr, remote: SocketAddr },
}

impl Relaying {
    /// Asks for an allocation of each family, as far as the node has places.
    pub(super) fn new(allocator: &Arc<dyn RelayAllocator>, places: &Arc<Semaphore>, hidden: bool) -> Self {
        let steps = AllocationSteps::default();
        let asked = Some(AskedRelays::begin(allocator, places, &steps));
        Self { hidden, asked, held: Vec::new(), peers: BTreeSet::new(), steps }
    }

    /// What has come of asking for allocations.
    pub(super) fn steps(&self) -> AllocationSteps {
        self.steps.clone()
    }

    /// Whether no more allocations will come.
    pub(super) fn is_complete(&self) -> bool {
        self.asked.is_none()
    }

    /// Takes the allocations that are there by now.
    pub(super) fn take_made(&mut self) {
        while let Some(Ok(held)) = self.asked.as_mut().map(|asked| asked.made.try_recv()) {
            self.hold(held);
        }
    }

    /// Lets in all these addresses of the peer, also at allocations to come.
    pub(super) fn permit(&mut self, peers: impl IntoIterator<Item = IpAddr>) {
        for peer in peers {
            if self.peers.len() < MAX_PERMITTED && self.peers.insert(peer) {
                self.held.iter().for_each(|held| held.allocation.permit(peer));
            }
        }
    }

    /// Connects to the peer from a relayed address.
    pub(super) fn connect(
        &self,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) -> Result<BoxFuture<'static, Result<PathStream, ConnectFailure>>, ConnectFailure> {
        let held = self.held.iter().find(|held| held.allocation.relayed() == relayed);
        let connector = held.map(|held| held.allocation.connector()).ok_or(ConnectFailure::Other)?;
        Ok(async move { connector.connect(peer).await }.boxed())
    }

    /// Takes out the allocation of a relayed address: a path needs it.
    pub(super) fn take(&mut self, relayed: SocketAddr) -> Option<HeldAllocation> {
        let at = self.held.iter().position(|held| held.allocation.relayed() == relayed)?;
        Some(self.held.swap_remove(at))
    }

    /// What happens next.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<RelayEvent> {
        if let Some(asked) = &mut self.asked
            && let Poll::Ready(made) = asked.made.poll_recv(cx)
        {
            match made {
                Some(held) => self.hold(held),
                None => self.asked = None,
            }
            return Poll::Ready(RelayEvent::Allocated);
        }
        let mut at = 0;
        while let Some(held) = self.held.get_mut(at) {
            match held.allocation.poll_accept(cx) {
                Poll::Ready(Some((stream, remote))) => {
                    let relayed = held.allocation.relayed();
                    // The others have their turn before this one has its next.
                    self.held.rotate_left(at + 1);
                    return Poll::Ready(RelayEvent::Accepted { stream, relayed, remote });
                }
                Poll::Ready(None) => {
                    let lost = self.held.remove(at);
                    tracing::debug!(relayed = %lost.allocation.relayed(), "an allocation is gone");
                }
                Poll::Pending => at += 1,
            }
        }
        Poll::Pending
    }

    /// This side's candidates of the relayed stream: those of the relays, and the addresses from which it connects to those of
    /// the peer, which the peer's relay has to let in.
    pub(super) fn candidates(&self, gathered: &Gathered) -> Vec<LocalCandidate> {
        let mut found = RelayedCandidates::default();
        for held in &self.held {
            let relayed = held.allocation.relayed();
            found.add(CandidateKind::Relayed, TcpType::Passive, relayed, relayed);
            found.add(CandidateKind::Relayed, TcpType::Active, relayed, relayed);
        }
        if self.hidden {
            return found.candidates;
        }
        let is_host = |local: &&LocalCandidate| {
            local.candidate.kind == CandidateKind::Host && local.candidate.tcp_type == TcpType::Active
        };
        let hosts: Vec<&LocalCandidate> = gathered.candidates.iter().filter(is_host).collect();
        for host in &hosts {
            found.add(CandidateKind::Host, TcpType::Active, host.candidate.addr, host.base);
        }
        let observed = gathered.observations.iter().map(|one| (one.observed, one.local));
        let outer = gathered.candidates.iter().filter(|local| local.candidate.kind != CandidateKind::Host);
        let outer = outer.map(|local| (local.candidate.addr, local.base));
        let mapped = self.held.iter().filter_map(|held| {
            let mapped = held.allocation.mapped();
            let host = hosts.iter().find(|host| host.base.is_ipv4() == mapped.is_ipv4())?;
            Some((mapped, host.base))
        });
        for (addr, base) in outer.chain(observed).chain(mapped) {
            found.add(CandidateKind::ServerReflexive, TcpType::Active, addr, base);
        }
        found.candidates
    }

    fn hold(&mut self, held: HeldAllocation) {
        tracing::debug!(relayed = %held.allocation.relayed(), "a relay has an address for this side");
        // Before the peer learns of it.
        self.peers.iter().for_each(|peer| held.allocation.permit(*peer));
        self.held.push(held);
    }
}

impl AskedRelays {
    fn begin(allocator: &Arc<dyn RelayAllocator>, places: &Arc<Semaphore>, steps: &AllocationSteps) -> Self {
        let families = [AddressFamily::V4, AddressFamily::V6];
        let (sender, made) = mpsc::channel(families.len());
        let mut tasks = JoinSet::new();
        for family in families {
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                tracing::debug!("this node has as many allocations as it may have");
                continue;
            };
            let (allocating, sender) = (allocator.allocate(family), sender.clone());
            let (allocator, steps) = (Arc::clone(allocator), steps.clone());
            tasks.spawn(async move {
                let began = Instant::now();
                let allocated = match timeout(ALLOCATION_PATIENCE, allocating).await {
                    Ok(allocated) => allocated.map_err(AllocationError::from),
                    Err(_) => Err(AllocationError::TimedOut),
                };
                let took = began.elapsed();
                match allocated {
                    Ok(allocation) => {
                        let outcome = Ok((allocation.server().to_string(), allocation.relayed()));
                        steps.add(AllocationStep { family, took, outcome });
                        // If whoever asked is gone, this gives it back.
                        let _ = sender.send(HeldAllocation { allocation, place }).await;
                    }
                    Err(error) => {
                        tracing::debug!(%family, %error, "no relay has an address for this side");
                        if !allocator.is_empty() {
                            steps.add(AllocationStep { family, took, outcome: Err(error) });
                        }
                    }
                }
            });
        }
        Self { made, _tasks: tasks }
    }
}

impl fmt::Debug for Relaying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relaying").field("hidden", &self.hidden).field("held", &self.held).finish_non_exhaustive()
    }
}

impl fmt::Debug for HeldAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.allocation.relayed()).finish()
    }
}

#[derive(Default)]
struct RelayedCandidates {
    candidates: Vec<LocalCandidate>,
}

impl RelayedCandidates {
    /// Adds a candidate, if there is no better one with that address; earlier ones are preferred.
    fn add(&mut self, kind: CandidateKind, tcp_type: TcpType, addr: SocketAddr, base: SocketAddr) {
        let port = if tcp_type == TcpType::Active { DISCARD_PORT } else { addr.port() };
        let addr = SocketAddr::new(addr.ip(), port);
        let is_known = |known: &LocalCandidate| (known.candidate.tcp_type, known.candidate.addr) == (tcp_type, addr);
        if !self.candidates.iter().any(is_known) {
            let other = u16::try_from(self.candidates.len()).map_or(0, |count| MAX_OTHER_PREFERENCE - count);
            let candidate = Candidate::new(kind, tcp_type, addr, other);
            self.candidates.push(LocalCandidate { candidate, base });
        }
    }
}
