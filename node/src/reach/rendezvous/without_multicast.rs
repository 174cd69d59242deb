//! Multicast, in a build without the feature `mdns`: a behaviour that does nothing, and cannot be asked for anything.

use std::net::SocketAddr;

use libp2p::{PeerId, swarm::dummy};

use super::config::RendezvousError;

pub(super) type Multicast = dummy::Behaviour;

pub(super) fn behaviour(wanted: bool, _: PeerId, _: &[SocketAddr]) -> Result<Multicast, RendezvousError> {
    if wanted { Err(RendezvousError::WithoutMdns) } else { Ok(dummy::Behaviour) }
}
