//! What the task does with each event of the swarm: which part is told.
//!
//! What it is not: what the parts make of it.

use std::{net::SocketAddr, time::Instant};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    identify,
    kad::{self, GetProvidersOk, GetRecordOk, InboundRequest, QueryResult},
    ping, relay, request_response,
    swarm::{
        ConnectionError, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, SwarmEvent,
    },
};

use super::Actor;
#[cfg(feature = "mdns")]
use crate::reach::rendezvous::multicast::{self, MulticastEvent};
use crate::{
    base::clock,
    reach::rendezvous::{
        behaviour::{BehaviourEvent, PROTOCOL_FAMILY, PROTOCOL_VERSION},
        calls::CallsEvent,
        circuit::is_circuit,
        clocks::CLOCK_PROTOCOL,
        connections::Membership,
        hidden_line::LineBehaviourEvent,
        records::{RecordRefusal, record_key_of},
        reservations::RelayVerdict,
        routing,
        scope::{AddressScope, multiaddr_of, socket_addr_of},
        shares::RecordSource,
        turn::{self, Decided, TurnEvent},
        writes::{CheckedOffer, UncheckedOffer},
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
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let was_idle = matches!(cause, Some(ConnectionError::KeepAliveTimeout));
                self.on_closed(peer_id, connection_id, was_idle);
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                self.reservations.on_listener_closed(listener_id, Instant::now());
                self.status.changed();
            }
            SwarmEvent::OutgoingConnectionError { connection_id, .. }
                if self.address_proofs.on_failed(connection_id) => {}
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.doubts.on_gone(connection_id);
                self.entry_points.on_failed(connection_id, &error);
                if let Some(peer) = peer_id {
                    self.on_dial_failed(peer, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { .. } => {
                self.status.count(|counters| &counters.libp2p_incoming_failed);
            }
            SwarmEvent::NewListenAddr { address, .. } | SwarmEvent::ExpiredListenAddr { address, .. }
                if is_circuit(&address) => {}
            SwarmEvent::NewListenAddr { address, .. } => {
                if self.reachability.is_public() && AddressScope::of(&address) == Some(AddressScope::Wan) {
                    self.swarm.add_external_address(address);
                }
                self.on_network_change();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.on_address_lost(&address);
                self.on_network_change();
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_reached(&address, true),
            SwarmEvent::ExternalAddrExpired { address } => self.on_reached(&address, false),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Lan(event) => self.on_kad(AddressScope::Lan, event),
            BehaviourEvent::Wan(event) => self.on_kad(AddressScope::Wan, event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identified(connection_id, peer_id, &info);
            }
            #[cfg(feature = "mdns")]
            BehaviourEvent::Multicast(event) => self.on_multicast(event),
            BehaviourEvent::Ping(ping::Event { connection, result: Err(error), .. })
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%error, "a peer does not answer pings");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Ping(ping::Event { connection, peer, result: Ok(round_trip) }) => {
                self.connections.measured(&peer, connection, round_trip);
            }
            BehaviourEvent::Prober(probed) => self.on_probed(probed),
            BehaviourEvent::RelayClient(event) => self.on_relay_client(event),
            BehaviourEvent::Calls(CallsEvent::Dropped(counter)) => self.status.count(counter),
            BehaviourEvent::Turn(event) => self.on_turn(event),
            BehaviourEvent::Clock(event) => self.on_clock(event),
            BehaviourEvent::Reachable(event) => {
                tracing::debug!(reachable = event.result.is_ok(), "an address was tested from outside");
                if self.reachability.on_tested(&event.tested_addr, event.result.is_ok()) {
                    self.status.changed();
                }
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let remote = endpoint.get_remote_address();
        if self.address_proofs.on_connected(id) {
            routing::add(self.swarm.behaviour_mut(), peer, remote.clone());
            self.swarm.close_connection(id);
            return;
        }
        let local = self.reachability.local_end_of(endpoint);
        let mut last_received = None;
        match socket_addr_of(remote) {
            Some(addr) if endpoint.is_listener() => last_received = self.handshakes.done(addr),
            Some(addr) if AddressScope::of(remote) == Some(AddressScope::Wan) => {
                self.reservations.on_connected(peer, addr)
            }
            _ => {}
        }
        self.connections.opened(peer, id, endpoint, (local, last_received));
        if let Some(id) = self.connections.push_out(self.max_incoming) {
            self.status.count(|counters| &counters.libp2p_pushed_out);
            self.swarm.close_connection(id);
        }
        self.on_connected_again(peer, id);
        if self.entry_points.on_connected(id, peer)
            && let Some(scope) = AddressScope::of(remote)
        {
            // It gets into its table at once, so that a lookup need not wait for what the peer says of itself. Once it has, and
            // serves no DHT there, it leaves the table again.
            routing::add(self.swarm.behaviour_mut(), peer, remote.clone());
            self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
        }
        self.status.changed();
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId, was_idle: bool) {
        if self.doubts.on_gone(id) {
            self.lookups.ask_anew(self.swarm.behaviour_mut());
        }
        let Some(gone) = self.connections.closed(&peer, id) else { return };
        if gone.peer {
            self.entry_points.on_disconnected(peer);
            self.reservations.on_disconnected(&peer);
            if self.hidden_line.is_none() {
                self.reservations.on_link_lost(&peer);
            }
            if !was_idle {
                self.upkeep.on_broken(peer, Instant::now());
            }
        }
        if gone.network {
            tracing::info!("all peers are gone");
            self.announcer.on_all_lost();
            self.entry_points.hurry(Instant::now());
            // Those in the routing tables may still be there.
            routing::refresh(self.swarm.behaviour_mut());
        }
        self.status.changed();
    }

    /// Forgets a peer that cannot be reached, unless it may be our own network that is down.
    fn on_dial_failed(&mut self, peer: PeerId, error: &DialError) {
        if self.connections.is_empty() || self.connections.contains(&peer) || !routing::is_gone(error) {
            return;
        }
        if routing::remove(self.swarm.behaviour_mut(), &peer, &AddressScope::ALL) {
            self.upkeep.on_lost(Instant::now());
        }
        self.status.changed();
    }

    fn on_identified(&mut self, id: ConnectionId, peer: PeerId, info: &identify::Info) {
        if info.protocol_version != PROTOCOL_VERSION {
            match info.protocol_version.strip_prefix(PROTOCOL_FAMILY).and_then(|version| version.parse().ok()) {
                Some(version) => self.status.on_other_version(version),
                None => self.status.count(|counters| &counters.peer_of_another_network),
            }
            routing::remove(self.swarm.behaviour_mut(), &peer, &AddressScope::ALL);
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        if !self.connections.identified(&peer, id, Instant::now()) {
            self.status.count(|counters| &counters.identified_too_often);
            self.swarm.close_connection(id);
            return;
        }
        let Some(connection) = self.connections.get(&peer, id) else { return };
        let remote = &connection.remote;
        if let Some(observed) = self.reachability.on_observed(&info.observed_addr, connection) {
            // What identify itself proposes to test has the port of the listener in place of that of the NAT.
            let addr = multiaddr_of(observed);
            let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &addr });
            self.swarm.behaviour_mut().reachable.on_swarm_event(candidate);
            self.status.changed();
        }
        self.reservations.on_identified(peer, info, socket_addr_of(remote));
        if info.protocols.contains(&CLOCK_PROTOCOL) {
            self.ask_clock(&peer);
        }
        let connections = self.connections.of(&peer);
        let unproven = routing::on_identified(self.swarm.behaviour_mut(), peer, info, &connections);
        self.address_proofs.stated(peer, &connections, &unproven);
        match self.connections.join() {
            Membership::Joined => {}
            Membership::New => self.on_joined(),
            Membership::Lost => {
                // The peers in the tables may have gone with the network. (Kademlia does this itself for a first peer.)
                routing::refresh(self.swarm.behaviour_mut());
                self.on_joined();
            }
        }
    }

    /// The first peer after a time with none: what waited for one goes on.
    fn on_joined(&mut self) {
        self.upkeep.on_joined(Instant::now());
        for scope in AddressScope::ALL {
            if self.swarm.behaviour_mut().peers(scope) > 0 {
                self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
                self.announcer.on_peer(scope);
            }
        }
    }

    #[cfg(feature = "mdns")]
    fn on_multicast(&mut self, event: MulticastEvent) {
        let dials: Vec<_> = multicast::dials(event, |peer| self.swarm.is_connected(peer)).collect();
        for dial in dials {
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%error, "a peer of the local network cannot be dialled");
            }
        }
    }

    fn on_network_change(&mut self) {
        self.on_reachability();
        self.entry_points.hurry(Instant::now());
        routing::refresh(self.swarm.behaviour_mut());
        self.status.changed();
    }

    /// Closes what hangs on an address that this machine has no longer: such connections never say that they are dead,
    /// and what is asked over them would wait for its time to run out.
    fn on_address_lost(&mut self, lost: &Multiaddr) {
        if let Some(lost) = socket_addr_of(lost) {
            self.reachability.on_address_lost(lost.ip());
        }
        self.swarm.remove_external_address(lost);
        if !self.reachability.is_public() {
            self.on_reached(lost, false);
        }
        let hanging = self.connections.hanging_on(lost);
        tracing::debug!(connections = hanging.len(), "an address of this machine is gone");
        for id in hanging {
            self.swarm.close_connection(id);
            self.status.count(|counters| &counters.closed_with_address);
        }
    }

    /// Notes that an address of this node has been reached from outside, or can be no longer.
    fn on_reached(&mut self, addr: &Multiaddr, is_reachable: bool) {
        let own = self.own_addrs();
        let was_known = socket_addr_of(addr).is_some_and(|addr| self.reachability.external().contains(&addr));
        let Some(given_up) = self.reachability.on_reached(addr, is_reachable, &own) else { return };
        if is_reachable && !was_known {
            self.announcer.on_new_address(AddressScope::Wan);
        }
        for addr in given_up {
            self.swarm.remove_external_address(&multiaddr_of(addr));
            self.status.count(|counters| &counters.external_address_dropped);
        }
        let serve = self.reachability.serves_wan();
        let mode = if serve { kad::Mode::Server } else { kad::Mode::Client };
        if self.swarm.behaviour_mut().wan.inner.mode() != mode {
            tracing::info!(serve, "the wide-area DHT is served now, or no longer");
            self.swarm.behaviour_mut().wan.inner.set_mode(Some(mode));
            self.announce_relay();
        }
        self.on_reachability();
        self.status.changed();
    }

    /// Compares what this node is known to be reachable at with what it does: whether it relays, and whether it needs relays.
    fn on_reachability(&mut self) {
        let own = self.own_addrs();
        let has_address = self.swarm.external_addresses().any(|addr| AddressScope::of(addr) == Some(AddressScope::Wan));
        let status = match has_address && self.reachability.is_reachable_somehow(&own) {
            true => relay::Status::Enable,
            false => relay::Status::Disable,
        };
        let is_reachable = self.reachability.is_reachable(&own);
        self.reservations.set_needed(!is_reachable);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.keep_alive.set_reachable(is_reachable);
        behaviour.ping.inner.set_reachable(is_reachable);
        behaviour.relay.inner.set_status(Some(status));
    }

    fn on_relay_client(&mut self, event: relay::client::Event) {
        if let RelayVerdict::Leave(relay) = self.reservations.on_client_event(&event, Instant::now()) {
            self.status.count(|counters| &counters.relay_left);
            let _ = self.swarm.disconnect_peer_id(relay);
        }
        self.status.changed();
    }

    pub(super) fn on_line_event(&mut self, event: SwarmEvent<LineBehaviourEvent>) {
        if let Some(line) = &mut self.hidden_line {
            line.on_event(event, &mut self.reservations, &mut self.status);
        }
    }

    fn on_turn(&mut self, event: TurnEvent) {
        use request_response::{Event, InboundFailure, Message};
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                let Some((remote, _)) = self.end_of(&peer, connection_id) else { return };
                let own = *self.swarm.local_peer_id();
                if let Err(counter) = self.relay_requests.on_request(request, (own, peer, remote.ip()), channel) {
                    self.status.count(counter);
                }
            }
            Event::Message { peer, connection_id, message: Message::Response { request_id, response } } => {
                let via = self.end_of(&peer, connection_id);
                self.credential_requests.on_answer(request_id, response, via);
            }
            Event::OutboundFailure { request_id, error, .. } => self.credential_requests.on_failed(request_id, error),
            // It was refused, and has been counted.
            Event::InboundFailure { error: InboundFailure::ResponseOmission, .. } => {}
            Event::InboundFailure { error, .. } => {
                tracing::debug!(%error, "a request for relaying was not answered");
                self.status.count(|counters| &counters.turn_request_failed);
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Answers a request for relaying that has been decided on.
    pub(super) fn on_decided(&mut self, Decided { channel, decision }: Decided) {
        let (message, counter) = turn::answer(decision, || self.reached_at());
        self.status.count(counter);
        // Without an answer the stream is closed.
        if let Some(message) = message
            && self.swarm.behaviour_mut().turn.inner.send_response(channel, message).is_err()
        {
            self.status.count(|counters| &counters.turn_requester_gone);
        }
    }

    /// The addresses at which others have reached this node, or its operator says that they can.
    fn reached_at(&self) -> Vec<SocketAddr> {
        let mut addrs: Vec<SocketAddr> = Vec::new();
        let stated = self.swarm.external_addresses().filter(|addr| AddressScope::of(addr) == Some(AddressScope::Wan));
        for addr in stated.filter_map(socket_addr_of) {
            let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs
    }

    /// The other end of a connection that is no circuit, and whether this node has dialled it.
    fn end_of(&self, peer: &PeerId, id: ConnectionId) -> Option<(SocketAddr, bool)> {
        let connection = self.connections.get(peer, id)?;
        Some((socket_addr_of(&connection.remote)?, connection.is_dialled))
    }

    fn on_kad(&mut self, scope: AddressScope, event: kad::Event) {
        match event {
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
                self.announcer.on_peer(scope);
                self.status.changed();
            }
            kad::Event::RoutingUpdated { peer, addresses, .. } => {
                routing::limit(self.swarm.behaviour_mut(), scope, &peer, &addresses);
            }
            kad::Event::RoutablePeer { peer, address } | kad::Event::PendingRoutablePeer { peer, address }
                if AddressScope::of(&address) == Some(scope) =>
            {
                routing::add(self.swarm.behaviour_mut(), peer, address);
            }
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { source, connection, record: Some(record) },
            } => self.on_put(scope, (source, connection), record),
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.on_provider(scope, record);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query(scope, id, result, step.last);
            }
            _ => {}
        }
    }

    /// Takes an offer that a peer puts: as soon as it is checked, unless it is there already.
    fn on_put(&mut self, scope: AddressScope, (peer, connection): (PeerId, ConnectionId), record: kad::Record) {
        let Some((remote, _)) = self.end_of(&peer, connection) else { return };
        let source = RecordSource::of(remote.ip());
        let Some(key) = record_key_of(&record.key) else {
            return self.status.count(RecordRefusal::NotAKey.counter());
        };
        if self.swarm.behaviour_mut().kad(scope).store_mut().confirm(&record.key, &record.value, source) {
            return;
        }
        let offer = UncheckedOffer { scope, key, value: record.value, source, until: record.expires };
        if !self.writes.may_put(&peer, remote.ip(), Instant::now()) || !self.writes.check(offer) {
            self.status.count(|counters| &counters.record_refused_busy);
        }
    }

    /// Stores an offer of a peer that has been checked.
    pub(super) fn on_checked(&mut self, CheckedOffer { scope, source, until, offer }: CheckedOffer) {
        let table = self.swarm.behaviour_mut().kad(scope).store_mut();
        match offer.and_then(|offer| table.accept(offer, source, until)) {
            Ok(()) => self.look_at_records(),
            Err(refusal) => {
                tracing::debug!(?refusal, "a record was refused");
                self.status.count(refusal.counter());
            }
        }
    }

    fn on_provider(&mut self, scope: AddressScope, record: kad::ProviderRecord) {
        let connections = self.connections.of(&record.provider);
        let remote = connections.iter().find_map(|connection| socket_addr_of(&connection.remote));
        let Some(remote) = remote else { return };
        if !self.writes.may_provide(&record.provider, remote.ip(), Instant::now()) {
            self.status.count(|counters| &counters.provider_refused_busy);
        } else if !routing::add_provider(self.swarm.behaviour_mut(), scope, record, &connections) {
            self.status.count(|counters| &counters.provider_refused);
        }
    }

    fn on_query(&mut self, scope: AddressScope, id: kad::QueryId, result: QueryResult, last: bool) {
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
                    self.status.count(refusal.counter());
                }
            }
            QueryResult::GetProviders(found) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = found {
                    self.lookups.on_providers(behaviour, query, own, providers);
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
