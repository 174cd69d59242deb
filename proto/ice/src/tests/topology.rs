//! Two sides in a network: what stands between them, and what gathering finds there.
//!
//! What it is not: the agents, which [`super::pair`] runs, or a judgement, which is [`super::theory`]'s.

use std::net::{IpAddr, SocketAddr};

use super::{
    nat::{Filtering, MappingBehaviour, NatKind, Unsolicited},
    network::{Core, HostId, Network, RouterId},
};
use crate::{
    AgentOptions, LocalCandidate, Mapping, Stream,
    candidate::{Candidate, CandidateKind, TcpType},
};

/// A STUN server, in the core.
const STUN_SERVER: &str = "192.0.2.1:3478";
/// The port of an active candidate (RFC 6544 §4.1).
const DISCARD: u16 = 9;

/// How a side's IPv6 is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum V6 {
    None,
    Open,
    /// Behind a stateful firewall.
    Firewalled(Unsolicited),
}

/// Where one side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its routers for IPv4, from the host to the core; none: it has a public address.
    pub(super) nats: Vec<NatKind>,
    pub(super) v4: bool,
    pub(super) v6: V6,
    /// The router next to it has mapped the port on request.
    pub(super) mapped: bool,
    /// The node's port.
    pub(super) port: u16,
    /// Whether it can send opening SYNs.
    pub(super) opening: bool,
    /// The outside has called it reachable because of a filter that lets in whom it has just spoken to.
    pub(super) falsely_confirmed: bool,
}

impl Place {
    pub(super) fn public() -> Self {
        Self::behind(&[])
    }

    pub(super) fn behind(nats: &[NatKind]) -> Self {
        Self {
            nats: nats.to_vec(),
            v4: true,
            v6: V6::None,
            mapped: false,
            port: 4001,
            opening: true,
            falsely_confirmed: false,
        }
    }

    pub(super) fn only_v6(v6: V6) -> Self {
        Self { v4: false, v6, ..Self::behind(&[TRANSPARENT]) }
    }

    pub(super) fn with_mapped_port(self) -> Self {
        Self { mapped: true, ..self }
    }

    pub(super) fn without_opening(self) -> Self {
        Self { opening: false, ..self }
    }

    pub(super) fn with_v6(self, v6: V6) -> Self {
        Self { v6, ..self }
    }

    pub(super) fn listening_at(self, port: u16) -> Self {
        Self { port, ..self }
    }

    pub(super) fn has_known_mapping(&self) -> bool {
        self.nats.iter().all(NatKind::has_known_mapping)
    }

    pub(super) fn weakest_filter_is(&self, at_most: Filtering) -> bool {
        self.nats.iter().all(|nat| nat.filtering <= at_most)
    }

    /// Whether the outside, asked to connect to the mapping that a STUN server saw, gets through.
    pub(super) fn is_confirmed(&self) -> bool {
        self.has_known_mapping() && self.weakest_filter_is(Filtering::EndpointIndependent) && !self.is_restricted()
    }

    /// Whether a firewall lets it out to one port only.
    pub(super) fn is_restricted(&self) -> bool {
        self.nats.iter().any(|nat| nat.only_port.is_some())
    }

    /// Whether its firewall lets it connect to that port.
    pub(super) fn may_go_to(&self, port: u16) -> bool {
        self.nats.iter().all(|nat| nat.only_port.is_none_or(|only| only == port))
    }

    pub(super) fn resets(&self) -> bool {
        self.nats.iter().any(|nat| nat.unsolicited == Unsolicited::Reset)
    }
}

/// What the two sides share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Together {
    /// Nothing but the core.
    Apart,
    /// One local network, behind the routers of the first side.
    OneLan,
    /// The outermost router of the first side; each has its own routers inside.
    OneCarrier,
}

/// A whole scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) places: [Place; 2],
    pub(super) together: Together,
}

/// One side in the network, with what gathering finds.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    pub(super) host: HostId,
    pub(super) candidates: Vec<LocalCandidate>,
    pub(super) options: AgentOptions,
}

impl Topology {
    pub(super) fn apart(first: Place, second: Place) -> Self {
        Self { places: [first, second], together: Together::Apart }
    }

    /// Builds the network and gathers for both sides.
    pub(super) fn build(&self, core: Core, seed: u64) -> (Network, [Gathered; 2]) {
        let mut net = Network::new(core, seed);
        let first = self.routers(&mut net, 0, Vec::new());
        let shared = match self.together {
            Together::Apart => Vec::new(),
            Together::OneLan => first.clone(),
            Together::OneCarrier => first[..1].to_vec(),
        };
        let second = self.routers(&mut net, 1, shared);
        let gathered = [first, second].map(|routers| routers.last().copied());
        let gathered = [0, 1].map(|side| self.gather(&mut net, side, gathered[side]));
        (net, gathered)
    }

    /// The routers of a side, from the core to the host; `routers` are there already.
    fn routers(&self, net: &mut Network, side: usize, mut routers: Vec<RouterId>) -> Vec<RouterId> {
        let place = &self.places[side];
        let last = place.nats.len().saturating_sub(1);
        for (depth, kind) in place.nats.iter().rev().enumerate().skip(routers.len()) {
            let number = u8::try_from(depth * 2 + side).unwrap();
            let outer = if depth == 0 { [203, 0, 113, 2 + number] } else { [100, 64, 0, 2 + number] };
            let v6 = match place.v6 {
                V6::Firewalled(unsolicited) if depth == last => NatKind::firewall(unsolicited),
                _ => TRANSPARENT,
            };
            routers.push(net.add_router(routers.last().copied(), outer.into(), *kind, v6));
        }
        routers
    }

    fn gather(&self, net: &mut Network, side: usize, router: Option<RouterId>) -> Gathered {
        let place = &self.places[side];
        let hosts = self.host_addrs(side);
        let ips: Vec<IpAddr> = hosts.iter().map(SocketAddr::ip).collect();
        let host = net.add_host(router, &ips, place.port);
        let mut found = Found { candidates: Vec::new() };
        for base in &hosts {
            found.add(CandidateKind::Host, TcpType::Active, SocketAddr::new(base.ip(), DISCARD), *base);
            found.add(CandidateKind::Host, TcpType::Passive, *base, *base);
            found.add(CandidateKind::Host, TcpType::SimultaneousOpen, *base, *base);
        }
        if let Some(base) = hosts.iter().find(|base| base.is_ipv4() && !place.nats.is_empty()) {
            if let Some(seen) = net.reflexive(host, *base, STUN_SERVER.parse().unwrap()) {
                found.add(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, seen, *base);
                if place.is_confirmed() || place.falsely_confirmed {
                    found.add(CandidateKind::ServerReflexive, TcpType::Passive, seen, *base);
                }
            }
            if place.mapped {
                let mapped = net.forward_port(host, *base);
                found.add(CandidateKind::PortMapped, TcpType::Passive, mapped, *base);
            }
        }
        let mapping = match place.has_known_mapping() {
            _ if place.is_restricted() => Mapping::Unknown,
            true => Mapping::EndpointIndependent,
            false => Mapping::EndpointDependent,
        };
        let options = AgentOptions { stream: Stream::Direct, mapping, opening: place.opening };
        Gathered { host, candidates: found.candidates, options }
    }

    /// The addresses of a side's host, IPv6 first.
    fn host_addrs(&self, side: usize) -> Vec<SocketAddr> {
        let place = &self.places[side];
        let number = u8::try_from(side).unwrap();
        let v4 = match (place.nats.is_empty(), self.together) {
            (true, _) => IpAddr::from([198, 51, 100, 10 + number]),
            (false, Together::OneLan) => IpAddr::from([192, 168, 1, 10 + number]),
            // Private addresses of two houses are the same more often than not.
            (false, _) => IpAddr::from([192, 168, 1, 10]),
        };
        let v6 = IpAddr::from([0x2001, 0xdb8, u16::from(number) + 1, 0, 0, 0, 0, 0x10]);
        let v6 = (place.v6 != V6::None).then_some(v6);
        v6.into_iter().chain(place.v4.then_some(v4)).map(|ip| SocketAddr::new(ip, place.port)).collect()
    }
}

/// A router that does nothing.
const TRANSPARENT: NatKind =
    NatKind::new(MappingBehaviour::Identity, Filtering::EndpointIndependent, Unsolicited::Drop);

struct Found {
    candidates: Vec<LocalCandidate>,
}

impl Found {
    /// Adds a candidate; earlier ones are preferred.
    fn add(&mut self, kind: CandidateKind, tcp_type: TcpType, addr: SocketAddr, base: SocketAddr) {
        let preference = 0x1fff - u16::try_from(self.candidates.len()).unwrap();
        self.candidates.push(LocalCandidate { candidate: Candidate::new(kind, tcp_type, addr, preference), base });
    }
}
