//! IPv4 and IPv6: of clients, of relayed addresses and of peers.

use std::net::SocketAddr;

use keyferry_ice::ConnectFailure;
use keyferry_turn::{client::ConnectRefusal, long_term::UserCredentials};

use super::{
    bench::{Bench, accepted, config, exchange, in_time, listener_of, relayed},
    raw::RawClient,
};
use crate::reach::turn_client::{AddressFamily, Allocation, PeerConnectError};

const FAMILIES: [AddressFamily; 2] = [AddressFamily::V4, AddressFamily::V6];

async fn allocation(bench: &Bench, secure: bool, client: AddressFamily, family: AddressFamily) -> Allocation {
    let host = if client == AddressFamily::V4 { "127.0.0.1" } else { "::1" };
    let credentials = UserCredentials::new("ada", "lovelace").unwrap();
    let server = bench.server_at(host, secure).with_credentials(credentials);
    in_time(Allocation::make(&server, family)).await.unwrap()
}

fn other(family: AddressFamily) -> AddressFamily {
    if family == AddressFamily::V4 { AddressFamily::V6 } else { AddressFamily::V4 }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_either_family_relay_from_either_both_ways_round() {
    let bench = Bench::new(config()).await;
    for secure in [false, true] {
        for (client, family) in FAMILIES.into_iter().flat_map(|client| FAMILIES.map(|family| (client, family))) {
            let mut allocation = allocation(&bench, secure, client, family).await;
            assert_eq!(AddressFamily::of(allocation.relayed().ip()), family);
            assert_eq!(AddressFamily::of(allocation.mapped().ip()), client);

            let (mut to_peer, mut peer) = relayed(&allocation).await;
            assert_eq!(peer.peer_addr().unwrap(), allocation.relayed());
            exchange(&mut to_peer, &mut peer, 1 << 20).await;
            let (mut of_peer, mut other_peer) = accepted(&mut allocation).await;
            exchange(&mut of_peer, &mut other_peer, 1 << 20).await;
            // The first is still there.
            exchange(&mut to_peer, &mut peer, 10_000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_other_family_is_not_asked_for_and_is_refused_to_who_asks() {
    let bench = Bench::new(config()).await;
    for family in FAMILIES {
        let (_listener, peer): (_, SocketAddr) = listener_of(other(family)).await;
        let allocation = allocation(&bench, false, AddressFamily::V4, family).await;
        let error = allocation.connector().relay_to(peer).await.unwrap_err();
        assert_eq!(error, PeerConnectError::NotAsked(ConnectRefusal::Family));
        assert_eq!(ConnectFailure::from(error), ConnectFailure::Unreachable);

        let wire_family = |family| match family {
            AddressFamily::V4 => turn_types::AddressFamily::IPV4,
            AddressFamily::V6 => turn_types::AddressFamily::IPV6,
        };
        let mut raw = RawClient::connect(&bench).await;
        raw.allocate(wire_family(family)).await;
        assert_eq!(raw.connect_to(peer).await, 443);
        assert_eq!(raw.permit(peer).await, 443);
        assert_eq!(raw.refresh(wire_family(other(family))).await, 443, "RFC 8656 §8.2");
        // That harms nothing else.
        let (_listener, peer) = listener_of(family).await;
        assert_eq!((raw.connect_to(peer).await, raw.permit(peer).await), (0, 0));
        assert_eq!(raw.refresh(wire_family(family)).await, 0);
    }
    assert_eq!(bench.count(|counters| counters.mismatch), 6);
}
