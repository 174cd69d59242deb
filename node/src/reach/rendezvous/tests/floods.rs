//! Peers that want more than their share of a node: of its routing table, its places and its time.

use futures::StreamExt;
use libp2p::{
    Multiaddr, identify,
    kad::{self, GetClosestPeersOk, QueryResult},
    swarm::SwarmEvent,
};

use super::{
    hostile::{Hostile, RulesEvent, counter},
    *,
};

impl Hostile {
    /// Tells the victim again what it is, with these addresses besides its own.
    pub(super) async fn push(&mut self, addrs: &[String]) {
        let addrs: Vec<Multiaddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        addrs.iter().for_each(|addr| self.swarm.add_external_address(addr.clone()));
        let victim = self.victim;
        self.swarm.behaviour_mut().identify.push([victim]);
        self.run_until(|event| {
            matches!(
                event,
                SwarmEvent::Behaviour(RulesEvent::Identify(identify::Event::Pushed { .. }))
                    | SwarmEvent::ConnectionClosed { .. }
            )
        })
        .await;
        addrs.iter().for_each(|addr| self.swarm.remove_external_address(addr));
    }

    /// The addresses of a peer, by what the victim says.
    pub(super) async fn ask_for(&mut self, peer: PeerId) -> Vec<SocketAddr> {
        self.swarm.behaviour_mut().kad.get_closest_peers(peer);
        soon(async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(RulesEvent::Kad(kad::Event::OutboundQueryProgressed {
                    result: QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { peers, .. })),
                    ..
                })) = event
                {
                    let found = peers.into_iter().find(|found| found.peer_id == peer);
                    let addrs = found.map_or_else(Vec::new, |found| found.addrs);
                    return addrs.iter().filter_map(socket_addr_of).collect();
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_peer_that_speaks_of_itself_without_end_is_cut_off() {
    let victim = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&victim).await;
    let task = tokio::spawn(async move {
        loop {
            hostile.push(&[]).await;
        }
    });
    victim.until(|status| counter(status, "identified_too_often") > 0).await;
    task.abort();
}

#[tokio::test]
async fn one_host_with_all_places_gives_some_to_others() {
    let places = 8;
    let victim = start(RendezvousConfig { max_incoming: places, ..quiet_config(&[]) }).await;
    let mut strangers = Vec::new();
    for _ in 0..places {
        strangers.push(Hostile::at("127.0.0.2", AddressScope::Lan, &victim).await.in_the_background());
    }
    victim.until(|status| status.connected == places).await;
    let friends = [start(quiet_config(&[&victim])).await, start(quiet_config(&[&victim])).await];
    for friend in &friends {
        friend.until(|status| status.lan_peers >= 1).await;
    }
    victim.until(|status| counter(status, "libp2p_pushed_out") >= 2).await;
    strangers.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_peer_that_puts_offers_without_end_is_not_listened_to() {
    let victim = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&victim).await;
    let key = key_of(&secret(1));
    let newest = sealed(&secret(1), 1);
    hostile.put(key, newest.as_bytes().to_vec()).await;
    // The same again costs nothing.
    for _ in 0..20 {
        hostile.put(key, newest.as_bytes().to_vec()).await;
    }
    for number in 0..600_u32 {
        hostile.put(key, number.to_le_bytes().to_vec()).await;
    }
    let status = victim.until(|status| counter(status, "record_refused_busy") > 0).await;
    assert_eq!(status.records, 1);
}
