//! Routers of the virtual network: mapping and filtering by RFC 4787 and RFC 5382, with the state that connection tracking
//! keeps for each TCP connection (modelled on Linux' `nf_conntrack_proto_tcp.c`, without its window checks).
//!
//! What it is not: a path. It turns one segment into another; [`super::network`] carries them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    conntrack::{Direction, Tracked},
    segment::{Flags, Segment},
};

/// What the outer port of a connection depends on (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MappingBehaviour {
    /// No translation at all: a firewall.
    Identity,
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// Whose segments are let in through a mapping (RFC 4787 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// What happens to a SYN that is not let in (RFC 5382 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsolicited {
    Drop,
    Reset,
}

/// The behaviour of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NatKind {
    pub(super) mapping: MappingBehaviour,
    pub(super) filtering: Filtering,
    pub(super) unsolicited: Unsolicited,
    pub(super) hairpin: bool,
    /// The only remote port that connections from inside may go to.
    pub(super) only_port: Option<u16>,
}

impl NatKind {
    pub(super) const fn new(mapping: MappingBehaviour, filtering: Filtering, unsolicited: Unsolicited) -> Self {
        Self { mapping, filtering, unsolicited, hairpin: false, only_port: None }
    }

    /// A stateful firewall: no translation, and only what was asked for comes in.
    pub(super) const fn firewall(unsolicited: Unsolicited) -> Self {
        Self::new(MappingBehaviour::Identity, Filtering::AddressAndPortDependent, unsolicited)
    }

    /// Whether others can be told where its mappings are.
    pub(super) fn has_known_mapping(&self) -> bool {
        matches!(self.mapping, MappingBehaviour::EndpointIndependent | MappingBehaviour::Identity)
    }

    pub(super) const fn with_hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    pub(super) const fn only_to_port(self, port: u16) -> Self {
        Self { only_port: Some(port), ..self }
    }
}

/// What a router does with a segment.
#[derive(Debug)]
pub(super) enum Verdict {
    Forward(Segment),
    /// Goes back to where the segment came from.
    Answer(Segment),
    Drop,
}

#[derive(Debug)]
struct Entry {
    inner: SocketAddr,
    tracked: Tracked,
}

/// One router, for one address family.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) kind: NatKind,
    /// The address towards the outside; means nothing in a firewall.
    pub(super) outer: IpAddr,
    mappings: BTreeMap<(SocketAddr, Option<IpAddr>, Option<u16>), SocketAddr>,
    /// Connections by the outer address and the remote one.
    entries: BTreeMap<(SocketAddr, SocketAddr), Entry>,
    /// Outer addresses from which something went to a remote address: what address-dependent filtering knows.
    contacted: BTreeSet<(SocketAddr, IpAddr)>,
    /// Mapped on request: outer port to inner address.
    forwards: BTreeMap<u16, SocketAddr>,
    next_port: u16,
}

impl Nat {
    pub(super) fn new(kind: NatKind, outer: IpAddr, first_port: u16) -> Self {
        Self {
            kind,
            outer,
            mappings: BTreeMap::new(),
            entries: BTreeMap::new(),
            contacted: BTreeSet::new(),
            forwards: BTreeMap::new(),
            next_port: first_port,
        }
    }

    /// Maps a port on request, as UPnP-IGD, NAT-PMP and PCP do.
    pub(super) fn forward_port(&mut self, port: u16, inner: SocketAddr) -> SocketAddr {
        self.forwards.insert(port, inner);
        SocketAddr::new(self.outer, port)
    }

    /// The inner address that a firewall or a mapping leads to.
    pub(super) fn outer_addr(&mut self, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let key = match self.kind.mapping {
            MappingBehaviour::Identity => return inner,
            MappingBehaviour::EndpointIndependent => (inner, None, None),
            MappingBehaviour::AddressDependent => (inner, Some(remote.ip()), None),
            MappingBehaviour::AddressAndPortDependent => (inner, Some(remote.ip()), Some(remote.port())),
        };
        let (outer, next_port) = (self.outer, &mut self.next_port);
        *self.mappings.entry(key).or_insert_with(|| {
            // Some way off, so that nobody can guess the next one by adding 1.
            *next_port = 1024 + (*next_port).wrapping_mul(31).wrapping_add(7919) % 60_000;
            SocketAddr::new(outer, *next_port)
        })
    }

    /// Takes a segment from the inside.
    pub(super) fn outbound(&mut self, now: Duration, segment: Segment) -> Verdict {
        if self.kind.only_port.is_some_and(|port| port != segment.to.port()) && segment.flags == Flags::Syn {
            return self.refuse(&segment);
        }
        let answers = |(key, entry): &(&(SocketAddr, SocketAddr), &Entry)| {
            entry.inner == segment.from && key.1 == segment.to && entry.tracked.began(Direction::Inward)
        };
        // What came in by another mapping (a forwarded port) is answered from there.
        let inward = self.entries.iter().find(answers).map(|(key, _)| key.0);
        let outer = match inward {
            Some(outer) => outer,
            None if segment.flags == Flags::Syn || self.is_known(&segment) => self.outer_addr(segment.from, segment.to),
            None => return Verdict::Drop,
        };
        let entry = self
            .entries
            .entry((outer, segment.to))
            .or_insert_with(|| Entry { inner: segment.from, tracked: Tracked::new(Direction::Outward) });
        if entry.tracked.take(now, Direction::Outward, &segment) {
            self.contacted.insert((outer, segment.to.ip()));
            Verdict::Forward(Segment { from: outer, ..segment })
        } else {
            Verdict::Drop
        }
    }

    fn is_known(&mut self, segment: &Segment) -> bool {
        let outer = self.outer_addr(segment.from, segment.to);
        self.entries.contains_key(&(outer, segment.to))
    }

    /// Takes a segment from the outside, or one that turns round here.
    pub(super) fn inbound(&mut self, now: Duration, segment: Segment) -> Verdict {
        let key = (segment.to, segment.from);
        if self.entries.get(&key).is_some_and(|entry| entry.tracked.has_expired(now)) {
            self.entries.remove(&key);
        }
        if !self.entries.contains_key(&key) {
            match self.admits(&segment) {
                Some(inner) if segment.flags == Flags::Syn => {
                    self.entries.insert(key, Entry { inner, tracked: Tracked::new(Direction::Inward) });
                }
                _ => return self.refuse(&segment),
            }
        }
        let entry = self.entries.get_mut(&key).unwrap();
        if entry.tracked.take(now, Direction::Inward, &segment) {
            Verdict::Forward(Segment { to: entry.inner, ..segment })
        } else if segment.flags == Flags::Syn {
            self.refuse(&segment)
        } else {
            Verdict::Drop
        }
    }

    /// To whom a new connection from outside leads, if it is let in.
    fn admits(&self, segment: &Segment) -> Option<SocketAddr> {
        if let Some(inner) = self.forwards.get(&segment.to.port()).filter(|_| segment.to.ip() == self.outer) {
            return Some(*inner);
        }
        let inner = match self.kind.mapping {
            MappingBehaviour::Identity => Some(segment.to),
            _ => self.mappings.iter().find(|(_, outer)| **outer == segment.to).map(|(key, _)| key.0),
        };
        inner.filter(|_| match self.kind.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.contacted.contains(&(segment.to, segment.from.ip())),
            Filtering::AddressAndPortDependent => false,
        })
    }

    fn refuse(&self, segment: &Segment) -> Verdict {
        match self.kind.unsolicited {
            Unsolicited::Reset if segment.flags != Flags::Rst => Verdict::Answer(segment.refusal()),
            _ => Verdict::Drop,
        }
    }
}
