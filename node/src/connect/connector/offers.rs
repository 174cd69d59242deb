//! The ways to a node that its offers name.
//!
//! What it is not: going them, or the DHT that the offers come from.

use std::net::SocketAddr;

use keyferry_ice::candidate::{CandidateKind, TcpType};
use keyferry_proto::{
    identity::NodeKey,
    offer::{Offer, SealedOffer, record_key, resolve_days},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use crate::{base::clock, net::path::RelayMode, reach::rendezvous::Rendezvous};

/// Offers that may wait to be looked at.
const WAITING_OFFERS: usize = 4;

/// What one offer says of where its node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Addresses that accept connections, the best first.
    pub(crate) passive: Vec<SocketAddr>,
    /// Circuits at which the node can be called.
    pub(crate) circuits: Vec<Multiaddr>,
}

/// What the node's offers say, as they come in; those that are not the node's are left out.
pub(crate) fn ways_to(rendezvous: &Rendezvous, node: NodeKey, relay_mode: RelayMode) -> mpsc::Receiver<Ways> {
    let (sender, receiver) = mpsc::channel(WAITING_OFFERS);
    for day in resolve_days(clock::now()) {
        let mut sealed = rendezvous.resolve(record_key(&node, day));
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(offer) = sealed.recv().await {
                if let Some(ways) = read(&offer, &node, relay_mode)
                    && sender.send(ways).await.is_err()
                {
                    return;
                }
            }
        });
    }
    receiver
}

fn read(sealed: &SealedOffer, node: &NodeKey, relay_mode: RelayMode) -> Option<Ways> {
    let signed = match sealed.open(node, clock::now()) {
        Ok(signed) => signed,
        Err(error) => {
            tracing::debug!(%error, "an offer does not open");
            return None;
        }
    };
    Some(ways_of(signed.offer(), relay_mode))
}

/// What an offer says, without what this node may not use.
fn ways_of(offer: &Offer, relay_mode: RelayMode) -> Ways {
    let mut candidates = offer.candidates.clone();
    candidates.retain(|candidate| {
        candidate.tcp_type == TcpType::Passive
            && (relay_mode.allows_relays() || candidate.kind != CandidateKind::Relayed)
    });
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
    let passive = candidates.into_iter().map(|candidate| candidate.addr).collect();
    Ways { passive, circuits: offer.signalling.clone() }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::candidate::Candidate;
    use keyferry_net::time::UnixTime;
    use keyferry_proto::offer::ice_credentials;

    use super::*;

    #[test]
    fn relayed_addresses_of_a_peer_are_not_dialled_by_a_node_that_uses_no_relays() {
        let passive = |kind, addr: &str| Candidate::new(kind, TcpType::Passive, addr.parse().unwrap(), 1);
        let (ufrag, password) = ice_credentials(&[0; 20]);
        let offer = Offer {
            ufrag,
            password,
            candidates: vec![
                passive(CandidateKind::Relayed, "203.0.113.1:50000"),
                passive(CandidateKind::Host, "192.0.2.7:4600"),
            ],
            signalling: Vec::new(),
            sequence: 1,
            expires: UnixTime(1),
        };
        let dialled = |mode| ways_of(&offer, mode).passive.iter().map(ToString::to_string).collect::<Vec<_>>();

        assert_eq!(dialled(RelayMode::Both), ["192.0.2.7:4600", "203.0.113.1:50000"]);
        assert_eq!(dialled(RelayMode::NoRelay), ["192.0.2.7:4600"]);
    }
}
