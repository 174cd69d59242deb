//! Peers that the server lets in (RFC 8656 §9).
//!
//! What it is not: a choice of peers.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use super::{
    Client, ClientOutput, Ending, PermitRefusal, RequestError, allocation::Phase, requests::OutgoingRequest,
    transactions::Purpose,
};

/// What is known of each peer.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    peers: BTreeMap<IpAddr, Permission>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// To be asked for once the allocation stands.
    Wanted,
    /// The answer to CreatePermission is awaited.
    Asked,
    /// Granted, for the first time or again.
    Granted { refresh_at: Instant },
    /// Granted, and the answer to the next CreatePermission is awaited.
    Renewing,
}

impl Permissions {
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

impl Client {
    pub(super) fn add_permission(&mut self, now: Instant, peer: IpAddr) -> Result<(), PermitRefusal> {
        if self.permissions.peers.contains_key(&peer) {
            return Ok(());
        }
        let limit = self.config.max_permissions;
        if self.permissions.peers.len() >= limit {
            return Err(PermitRefusal::TooMany { limit });
        }
        self.permissions.peers.insert(peer, Permission::Wanted);
        if matches!(self.phase, Phase::Standing(_)) {
            self.ask_for_permissions(now);
        }
        Ok(())
    }

    /// Asks for those that are wanted.
    pub(super) fn ask_for_permissions(&mut self, now: Instant) {
        let wanted = |permission: &Permission| *permission == Permission::Wanted;
        self.create_permissions(now, wanted, Permission::Asked);
    }

    /// Asks again for those that will end.
    pub(super) fn refresh_permissions(&mut self, now: Instant) {
        let is_due = |permission: &Permission| permission.refresh_at().is_some_and(|at| at <= now);
        self.create_permissions(now, is_due, Permission::Renewing);
    }

    /// One request for each peer: a server refuses all peers of a request together (RFC 8656 §10.2).
    fn create_permissions(&mut self, now: Instant, is_due: impl Fn(&Permission) -> bool, then: Permission) {
        let due = self.permissions.peers.iter_mut().filter(|(_, permission)| is_due(permission));
        let due: Vec<IpAddr> = due
            .map(|(peer, permission)| {
                *permission = then;
                *peer
            })
            .collect();
        for peer in due {
            self.request(now, Purpose::Permission(peer), OutgoingRequest::CreatePermission { peer });
        }
    }

    /// The answer to CreatePermission.
    pub(super) fn permitted(&mut self, now: Instant, peer: IpAddr) {
        let granted = Permission::Granted { refresh_at: now + self.config.permission_refresh };
        let before = self.permissions.peers.insert(peer, granted);
        if before == Some(Permission::Asked) {
            self.outputs.push_back(ClientOutput::Permitted { peer });
        }
    }

    /// CreatePermission has failed. A server that is silent on a connection that stands is gone.
    pub(super) fn permission_failed(&mut self, peer: IpAddr, error: RequestError) {
        match error {
            RequestError::Silent | RequestError::AllocationMismatch => self.end(Ending::Failed(error)),
            _ => {
                self.permissions.peers.remove(&peer);
                self.outputs.push_back(ClientOutput::PermissionRefused { peer, error });
            }
        }
    }
}
