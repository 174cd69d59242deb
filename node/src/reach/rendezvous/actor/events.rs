//! What the actor does with each event of the swarm: which of its parts is told.
//!
//! What it is not: what the parts make of it.

use std::time::Instant;

use libp2p::{
    identify,
    kad::{self, GetProvidersOk, GetRecordOk, InboundRequest, QueryResult},
    ping,
    swarm::SwarmEvent,
};

use super::Actor;
#[cfg(feature = "mdns")]
use crate::reach::rendezvous::multicast;
use crate::{
    base::clock,
    reach::rendezvous::{
        behaviour::BehaviourEvent,
        calls::CallsEvent,
        circuit::is_circuit,
        scope::{Scope, socket_addr_of},
    },
};

impl Actor {
    /// Takes one event of the swarm.
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            // Circuits are for calls, and concern nothing here.
            SwarmEvent::ConnectionEstablished { endpoint, .. } | SwarmEvent::ConnectionClosed { endpoint, .. }
                if endpoint.is_relayed() => {}
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let remote = endpoint.get_remote_address().clone();
                if let (true, Some(addr)) = (endpoint.is_listener(), socket_addr_of(&remote)) {
                    self.handshakes.done(addr);
                    self.departures.forget(addr);
                }
                if let Some(addr) = socket_addr_of(&remote)
                    && endpoint.is_dialer()
                    && Scope::of(&remote) == Some(Scope::Wan)
                {
                    self.reservations.on_connected(peer_id, addr);
                }
                if endpoint.is_dialer() {
                    self.dialled.insert(connection_id);
                }
                self.connections.entry(peer_id).or_default().insert(connection_id, remote.clone());
                if self.contacts.on_connected(connection_id, peer_id) {
                    self.on_entrance(peer_id, remote);
                }
                self.status_changed();
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => self.on_closed(peer_id, connection_id),
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                self.reservations.on_listener_closed(listener_id, Instant::now());
                self.status_changed();
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.contacts.on_failed(connection_id, &error);
                if let Some(peer) = peer_id {
                    self.on_unreachable(peer, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { .. } => self.count(|counters| &counters.libp2p_incoming_failed),
            SwarmEvent::NewListenAddr { address, .. } | SwarmEvent::ExpiredListenAddr { address, .. }
                if is_circuit(&address) => {}
            SwarmEvent::NewListenAddr { address, .. } => {
                if self.public && Scope::of(&address) == Some(Scope::Wan) {
                    self.swarm.add_external_address(address);
                }
                self.on_network_change();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.on_address_lost(&address);
                self.on_network_change();
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_reachable(&address, true),
            SwarmEvent::ExternalAddrExpired { address } => self.on_reachable(&address, false),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Lan(event) => self.on_kad(Scope::Lan, event),
            BehaviourEvent::Wan(event) => self.on_kad(Scope::Wan, event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identified(connection_id, peer_id, info);
            }
            #[cfg(feature = "mdns")]
            BehaviourEvent::Multicast(event) => {
                for dial in multicast::dials(event, |peer| self.swarm.is_connected(peer)).collect::<Vec<_>>() {
                    if let Err(error) = self.swarm.dial(dial) {
                        tracing::debug!(%error, "a peer of the local network cannot be dialled");
                    }
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Err(error), .. })
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%error, "a peer does not answer pings");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::RelayClient(event) => self.on_relay_client(event),
            BehaviourEvent::Calls(CallsEvent::Dropped(counter)) => self.count(counter),
            BehaviourEvent::Turn(event) => self.on_turn(event),
            BehaviourEvent::Reachable(event) => {
                tracing::debug!(reachable = event.result.is_ok(), "an address was tested from outside");
                self.on_tested(&event.tested_addr, event.result.is_ok());
            }
            _ => {}
        }
    }

    fn on_kad(&mut self, scope: Scope, event: kad::Event) {
        match event {
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
                self.announcer.on_peer(scope);
                self.status_changed();
            }
            kad::Event::RoutablePeer { peer, address } | kad::Event::PendingRoutablePeer { peer, address }
                if Scope::of(&address) == Some(scope) =>
            {
                self.add_to_table(peer, address);
            }
            kad::Event::InboundRequest { request: InboundRequest::PutRecord { record: Some(record), .. } } => {
                let stored = self.swarm.behaviour_mut().kad(scope).store_mut().accept(&record, clock::now());
                match stored {
                    Ok(()) => self.records_may_have_changed(),
                    Err(refusal) => {
                        tracing::debug!(?refusal, "a record was refused");
                        self.count(refusal.counter());
                    }
                }
            }
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.on_add_provider(scope, record);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query(scope, id, result, step.last);
            }
            _ => {}
        }
    }

    fn on_query(&mut self, scope: Scope, id: kad::QueryId, result: QueryResult, last: bool) {
        let query = (scope, id);
        let own = *self.swarm.local_peer_id();
        let behaviour = self.swarm.behaviour_mut();
        match result {
            QueryResult::GetRecord(found) => {
                let taken = match found {
                    Ok(GetRecordOk::FoundRecord(found)) => {
                        self.lookups.on_record(query, &found.record.value, clock::now())
                    }
                    _ => Ok(()),
                };
                if last {
                    self.lookups.on_query_ended(behaviour, query);
                }
                if let Err(refusal) = taken {
                    self.count(refusal.counter());
                }
            }
            QueryResult::GetProviders(found) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = found {
                    self.lookups.on_holders(behaviour, query, own, providers);
                }
                if last {
                    self.lookups.on_query_ended(behaviour, query);
                }
            }
            QueryResult::GetClosestPeers(result) if last => self.announcer.on_closest(behaviour, query, result),
            QueryResult::PutRecord(result) => self.announcer.on_put(behaviour, query, &result),
            QueryResult::StartProviding(result) => self.announcer.on_provided(behaviour, query, result.is_ok()),
            _ => {}
        }
    }
}
