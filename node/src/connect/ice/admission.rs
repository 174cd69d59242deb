//! Which of the peer's candidates its agent gets to see: those to which a stranger may make this node connect.
//!
//! What it is not: the rules; see [`AddressPolicy`].

use std::{net::SocketAddr, sync::Arc};

use keyferry_ice::{Candidate, Description, Signal, SignalError, TcpType};

use super::host::IceHost;
use crate::net::path::{AddressPolicy, AddressRefusal, AddressSource};

/// Ports below 1024 belong to services that no peer is. These two stay, since peers in closed networks listen there.
const OPEN_LOW_PORTS: [u16; 2] = [80, 443];

/// Why a candidate is left out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum CandidateRefusal {
    #[error(transparent)]
    Address(#[from] AddressRefusal),
    #[error("port {0} is that of a service")]
    Port(u16),
}

/// Stands between a peer and this side's agent, and counts what it holds back.
pub(super) struct PeerFilter<'a> {
    policy: &'a AddressPolicy,
    host: Arc<IceHost>,
}

impl<'a> PeerFilter<'a> {
    pub(super) fn new(policy: &'a AddressPolicy, host: Arc<IceHost>) -> Self {
        Self { policy, host }
    }

    pub(super) fn policy(&self) -> &'a AddressPolicy {
        self.policy
    }

    /// Leaves out of a description what may not be connected to.
    pub(super) fn admit_description(&self, description: &mut Description) {
        let refused = admit(self.policy, &mut description.candidates);
        self.host.counters.refused_candidates.add(refused as u64);
    }

    /// Leaves out of a signal what may not be connected to; false for a signal that asks for a connection to such an address.
    pub(super) fn admit_signal(&self, signal: &mut Signal) -> bool {
        let counters = &self.host.counters;
        let refused = admit_signal(self.policy, signal);
        match refused {
            Some(candidates) => counters.refused_candidates.add(candidates as u64),
            None => counters.refused_signals.add_one(),
        }
        refused.is_some()
    }

    /// Counts what the agent has not acted upon.
    pub(super) fn count_refused(&self, error: SignalError) {
        tracing::debug!(%error, "what the peer says is not acted upon");
        self.host.counters.refused_signals.add_one();
    }
}

/// Leaves out of a signal what may not be connected to, and returns how many candidates that were. `None` is a signal
/// that asks for a connection to such an address.
fn admit_signal(policy: &AddressPolicy, signal: &mut Signal) -> Option<usize> {
    match signal {
        Signal::Candidates { candidates, .. } => Some(admit(policy, candidates)),
        Signal::Opened(turn) | Signal::Cross { turn, .. } => check(policy, turn.sender).is_ok().then_some(0),
        Signal::Exhausted => Some(0),
    }
}

fn admit(policy: &AddressPolicy, candidates: &mut Vec<Candidate>) -> usize {
    let before = candidates.len();
    candidates.retain(|candidate| match admit_candidate(policy, candidate) {
        Ok(()) => true,
        Err(why) => {
            tracing::debug!(addr = %candidate.addr, %why, "a candidate of the peer is left out");
            false
        }
    });
    before - candidates.len()
}

/// An active candidate is not connected to, and its port means nothing.
fn admit_candidate(policy: &AddressPolicy, candidate: &Candidate) -> Result<(), CandidateRefusal> {
    match candidate.tcp_type {
        TcpType::Active => Ok(policy.check(candidate.addr, AddressSource::Offer)?),
        TcpType::Passive | TcpType::SimultaneousOpen => check(policy, candidate.addr),
    }
}

/// Anybody may call, and have this node connect to what it names.
fn check(policy: &AddressPolicy, addr: SocketAddr) -> Result<(), CandidateRefusal> {
    policy.check(addr, AddressSource::Offer)?;
    match addr.port() {
        port if port >= 1024 || OPEN_LOW_PORTS.contains(&port) => Ok(()),
        port => Err(CandidateRefusal::Port(port)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyferry_ice::{CandidateKind, OpenTurn};

    use super::*;

    /// A node that listens on all addresses of a machine that has nothing but loopback would take loopback; this one has
    /// a listener elsewhere by name.
    fn policy() -> AddressPolicy {
        AddressPolicy::for_listeners(&["192.0.2.1:5".parse().unwrap()]).unwrap()
    }

    fn candidate(addr: &str) -> Candidate {
        Candidate::new(CandidateKind::Host, TcpType::Passive, addr.parse().unwrap(), 0)
    }

    #[test]
    fn a_hostile_list_of_candidates_shrinks_to_what_may_be_connected_to() {
        let mut signal = Signal::Candidates {
            candidates: [
                "203.0.113.5:443",
                "203.0.113.5:22",
                "169.254.169.254:80",
                "224.0.0.1:9",
                "0.0.0.0:9",
                "192.0.2.1:5",
                "203.0.113.5:0",
                "[fe80::1]:9",
                "[ff02::1]:9",
                "[64:ff9b::a9fe:a9fe]:80",
                "[2001:db8::5]:1024",
                "[2001:db8::5]:1023",
            ]
            .map(candidate)
            .to_vec(),
            complete: true,
        };
        assert_eq!(admit_signal(&policy(), &mut signal), Some(10));
        let Signal::Candidates { candidates, .. } = signal else { panic!("another signal") };
        let left: Vec<String> = candidates.iter().map(|candidate| candidate.addr.to_string()).collect();
        assert_eq!(left, ["203.0.113.5:443", "[2001:db8::5]:1024"]);
    }

    #[test]
    fn an_active_candidate_has_any_port_since_nobody_connects_to_it() {
        let active = Candidate { tcp_type: TcpType::Active, ..candidate("203.0.113.5:9") };
        let mut signal = Signal::Candidates { candidates: vec![active], complete: true };
        assert_eq!(admit_signal(&policy(), &mut signal), Some(0));
    }

    #[test]
    fn a_turn_to_connect_to_a_forbidden_address_is_not_taken() {
        let turn = |sender: &str| {
            let receiver: SocketAddr = "192.0.2.1:5".parse().unwrap();
            OpenTurn { round: 0, sender: sender.parse().unwrap(), receiver, ttl: 2 }
        };
        let cross = |sender| Signal::Cross { turn: turn(sender), after: Duration::ZERO };
        assert_eq!(admit_signal(&policy(), &mut Signal::Opened(turn("203.0.113.5:1024"))), Some(0));
        assert_eq!(admit_signal(&policy(), &mut Signal::Opened(turn("203.0.113.5:25"))), None);
        assert_eq!(admit_signal(&policy(), &mut Signal::Opened(turn("169.254.169.254:80"))), None);
        assert_eq!(admit_signal(&policy(), &mut cross("192.0.2.1:5")), None);
    }
}
