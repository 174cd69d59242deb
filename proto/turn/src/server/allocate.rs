//! Requests for allocations and permissions (RFC 8656 §6 to §10, RFC 6062 §5.1).
//!
//! What it is not: connections with peers; see `connect`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    AddressFamily, AllocationId, ClientId, ListenFailure, ServerOutput, UserIdentity,
    allocations::{AllocationState, ServerAllocation},
    answer::Ticket,
    clients::ClientStage,
    quota::{Holder, Thing},
    request::TurnRefusal,
    state::Server,
    users::At,
};

impl Server {
    pub(super) fn allocate(
        &mut self,
        at: At,
        client: ClientId,
        identity: UserIdentity,
        ticket: &Ticket,
        family: AddressFamily,
        lifetime: Option<Duration>,
    ) -> Result<(), TurnRefusal> {
        let arrival = self.clients.get(client).ok_or(TurnRefusal::Mismatch)?.arrival;
        if !self.clients.is_half_open(client) {
            return Err(TurnRefusal::Mismatch);
        }
        let holder = Holder::new(identity, at.host);
        self.usage.take(at.now, &holder, Thing::Allocation).map_err(|_| TurnRefusal::Quota)?;
        let allocation = AllocationId(self.next_id());
        let lifetime = self.lifetime(lifetime);
        self.clients.settle(client, ClientStage::Control(allocation));
        let state = AllocationState::Opening { ticket: ticket.clone(), lifetime };
        self.allocations.insert(allocation, ServerAllocation::new(client, holder, family, state));
        self.outputs.push(ServerOutput::Listen { allocation, family, reached: arrival.local });
        Ok(())
    }

    /// Tells what became of [`ServerOutput::Listen`]: the relayed address, in the form that clients shall know.
    pub fn listening(&mut self, now: Instant, allocation: AllocationId, relayed: Result<SocketAddr, ListenFailure>) {
        self.expire(now);
        let Some(known) = self.allocations.get(allocation) else { return };
        let AllocationState::Opening { ticket, lifetime } = &known.state else { return };
        let (ticket, lifetime, client) = (ticket.clone(), *lifetime, known.client);
        match relayed {
            Ok(relayed) => {
                let expires = now + lifetime;
                self.allocations.establish(allocation, relayed, expires);
                self.due(expires);
                self.outputs.counters.allocated += 1;
                let Some(mapped) = self.clients.mapped(client) else { return };
                self.succeed(client, ticket.allocated(relayed, mapped, lifetime));
            }
            Err(failure) => {
                let refusal = match failure {
                    ListenFailure::NoSuchFamily => TurnRefusal::Family,
                    ListenFailure::NoPort => TurnRefusal::Capacity,
                };
                self.delete(allocation);
                self.reopen(now, client);
                self.refuse(client, &ticket, &refusal);
            }
        }
    }

    pub(super) fn refresh(
        &mut self,
        at: At,
        client: ClientId,
        identity: &UserIdentity,
        ticket: &Ticket,
        family: Option<AddressFamily>,
        lifetime: Option<Duration>,
    ) -> Result<(), TurnRefusal> {
        let allocation = self.standing(client, identity)?;
        let granted = if lifetime == Some(Duration::ZERO) { Duration::ZERO } else { self.lifetime(lifetime) };
        let known = self.allocations.get(allocation).ok_or(TurnRefusal::Mismatch)?;
        if family.is_some_and(|family| family != known.family) {
            return Err(TurnRefusal::PeerFamilyMismatch);
        }
        if granted.is_zero() {
            self.delete(allocation);
            self.reopen(at.now, client);
        } else {
            self.allocations.extend(allocation, at.now + granted);
            self.due(at.now + granted);
        }
        self.succeed(client, ticket.refreshed(granted));
        Ok(())
    }

    pub(super) fn permit(
        &mut self,
        at: At,
        client: ClientId,
        identity: &UserIdentity,
        ticket: &Ticket,
        peers: &[SocketAddr],
    ) -> Result<(), TurnRefusal> {
        let allocation = self.standing(client, identity)?;
        for peer in peers {
            self.check_family(allocation, *peer)?;
            if !self.allocations.is_relayed_host(peer.ip()) {
                self.policy.check_ip(peer.ip()).map_err(TurnRefusal::Peer)?;
            }
        }
        let until = at.now + self.config.permission_lifetime;
        let ips: BTreeSet<IpAddr> = peers.iter().map(|peer| peer.ip().to_canonical()).collect();
        let most = self.config.limits.permissions;
        self.allocations.permit(at.now, allocation, ips, until, most).map_err(|_| TurnRefusal::Capacity)?;
        self.succeed(client, ticket.done());
        Ok(())
    }

    /// The allocation that a client's connection controls, if it stands and is this identity's. Credentials that are issued anew
    /// have another username, and are still the same identity's.
    pub(super) fn standing(&self, client: ClientId, identity: &UserIdentity) -> Result<AllocationId, TurnRefusal> {
        let Some(ClientStage::Control(allocation)) = self.clients.stage(client) else {
            return Err(TurnRefusal::Mismatch);
        };
        let known = self.allocations.get(allocation).ok_or(TurnRefusal::Mismatch)?;
        match known.state {
            AllocationState::Standing { .. } if known.holder.identity == *identity => Ok(allocation),
            AllocationState::Standing { .. } => Err(TurnRefusal::WrongCredentials),
            AllocationState::Opening { .. } => Err(TurnRefusal::Mismatch),
        }
    }

    pub(super) fn check_family(&self, allocation: AllocationId, peer: SocketAddr) -> Result<(), TurnRefusal> {
        let family = self.allocations.get(allocation).map(|known| known.family);
        if family == Some(AddressFamily::of(peer.ip())) { Ok(()) } else { Err(TurnRefusal::PeerFamilyMismatch) }
    }

    /// Whether a peer may connect to an allocation.
    pub(super) fn may_connect(&self, now: Instant, allocation: AllocationId, peer: SocketAddr) -> bool {
        self.allocations.get(allocation).is_some_and(|known| known.has_permission(now, peer.ip()))
    }

    /// At least the default, at most the maximum (RFC 8656 §7.2).
    fn lifetime(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_default().clamp(self.config.default_lifetime, self.config.max_lifetime)
    }
}
