//! The addresses of circuits: `/ip4|ip6/…/tcp/PORT/p2p/RELAY/p2p-circuit/p2p/PEER`.
//!
//! What it is not: a circuit. Who relays, and for whom, is libp2p's business.

use std::net::SocketAddr;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::scope::{AddressScope, multiaddr_of};

/// A way to a peer through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelayCircuit {
    pub(super) relay_addr: SocketAddr,
    pub(super) relay: PeerId,
    pub(super) peer: PeerId,
}

impl RelayCircuit {
    /// The circuit that an address names; none for any other form, and for relays that are not in the wide area: an offer is
    /// a stranger's word, and must not make this node dial into its own network.
    pub(super) fn of(addr: &Multiaddr) -> Option<Self> {
        let relay_addr = Self::relay_addr_in(addr)?;
        let mut parts = addr.iter().skip(2);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Protocol::P2p(relay)), Some(Protocol::P2pCircuit), Some(Protocol::P2p(peer)), None)
                if relay != peer && AddressScope::of_ip(relay_addr.ip()) == Some(AddressScope::Wan) =>
            {
                Some(Self { relay_addr, relay, peer })
            }
            _ => None,
        }
    }

    /// The socket address that a multiaddr begins with.
    pub(super) fn relay_addr_in(addr: &Multiaddr) -> Option<SocketAddr> {
        let mut parts = addr.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        match parts.next()? {
            Protocol::Tcp(port) if port != 0 => Some(SocketAddr::new(ip, port)),
            _ => None,
        }
    }

    /// What one listens on to be reached this way.
    pub(super) fn listen_addr(&self) -> Multiaddr {
        multiaddr_of(self.relay_addr).with(Protocol::P2p(self.relay)).with(Protocol::P2pCircuit)
    }

    /// The whole address.
    pub(super) fn addr(&self) -> Multiaddr {
        self.listen_addr().with(Protocol::P2p(self.peer))
    }
}

/// Whether an address goes through a relay.
pub(super) fn is_circuit(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| part == Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_circuits_over_relays_of_the_wide_area_are_taken_and_nothing_else() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let circuit = RelayCircuit { relay_addr: "203.0.113.7:4600".parse().unwrap(), relay, peer };
        assert_eq!(RelayCircuit::of(&circuit.addr()), Some(circuit));
        assert!(is_circuit(&circuit.addr()));
        let tail = format!("p2p/{relay}/p2p-circuit/p2p/{peer}");
        for wrong in [
            format!("/ip4/127.0.0.1/tcp/4600/{tail}"),
            format!("/ip4/10.0.0.1/tcp/4600/{tail}"),
            format!("/ip4/169.254.169.254/tcp/80/{tail}"),
            format!("/ip4/203.0.113.7/tcp/0/{tail}"),
            format!("/ip4/203.0.113.7/udp/4600/{tail}"),
            format!("/dns4/example.org/tcp/4600/{tail}"),
            format!("/ip4/203.0.113.7/tcp/4600/{tail}/p2p-circuit/p2p/{peer}"),
            format!("/ip4/203.0.113.7/tcp/4600/p2p/{relay}/p2p-circuit"),
            format!("/ip4/203.0.113.7/tcp/4600/p2p/{relay}/p2p-circuit/p2p/{relay}"),
            format!("/ip4/203.0.113.7/tcp/4600/p2p/{peer}"),
            "/p2p-circuit".to_owned(),
        ] {
            assert_eq!(RelayCircuit::of(&wrong.parse().unwrap()), None, "{wrong}");
        }
    }
}
