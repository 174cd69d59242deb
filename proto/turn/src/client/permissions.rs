//! Peers that the server lets in (RFC 8656 §9).
//!
//! What it is not: a choice of peers, or the requests.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use super::PermitRefusal;

/// What is known of each peer.
#[derive(Debug)]
pub(super) struct Permissions {
    limit: usize,
    peers: BTreeMap<IpAddr, Permission>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// The client asks for it once the allocation stands.
    Wanted,
    /// It waits for the answer to CreatePermission.
    Asked,
    /// Granted, for the first time or again.
    Granted { refresh_at: Instant },
    /// Granted, and it waits for the answer to the next CreatePermission.
    Renewing,
}

impl Permissions {
    /// None yet, and at most this many.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, peers: BTreeMap::new() }
    }

    /// Wants a peer let in, unless it is known already.
    pub(super) fn want(&mut self, peer: IpAddr) -> Result<(), PermitRefusal> {
        if self.peers.contains_key(&peer) {
            return Ok(());
        }
        if self.peers.len() >= self.limit {
            return Err(PermitRefusal::TooMany { limit: self.limit });
        }
        self.peers.insert(peer, Permission::Wanted);
        Ok(())
    }

    /// Takes those that are wanted, to be asked for now.
    pub(super) fn ask(&mut self) -> Vec<IpAddr> {
        self.advance(|permission| *permission == Permission::Wanted, Permission::Asked)
    }

    /// Takes those that will end, to be asked for again.
    pub(super) fn renew(&mut self, now: Instant) -> Vec<IpAddr> {
        self.advance(|permission| permission.refresh_at().is_some_and(|at| at <= now), Permission::Renewing)
    }

    fn advance(&mut self, is_due: impl Fn(&Permission) -> bool, then: Permission) -> Vec<IpAddr> {
        let due = self.peers.iter_mut().filter(|(_, permission)| is_due(permission));
        due.map(|(peer, permission)| {
            *permission = then;
            *peer
        })
        .collect()
    }

    /// Notes that a peer is let in. Returns whether that is so for the first time.
    pub(super) fn grant(&mut self, peer: IpAddr, refresh_at: Instant) -> bool {
        self.peers.insert(peer, Permission::Granted { refresh_at }) == Some(Permission::Asked)
    }

    /// Forgets a peer that is not let in.
    pub(super) fn refuse(&mut self, peer: IpAddr) {
        self.peers.remove(&peer);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Permission::refresh_at).min()
    }

    /// Whether connections of this peer may come.
    pub(super) fn lets_in(&self, peer: IpAddr) -> bool {
        self.peers.contains_key(&peer)
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
    }
}

impl Permission {
    fn refresh_at(&self) -> Option<Instant> {
        match self {
            Self::Granted { refresh_at } => Some(*refresh_at),
            Self::Wanted | Self::Asked | Self::Renewing => None,
        }
    }
}
