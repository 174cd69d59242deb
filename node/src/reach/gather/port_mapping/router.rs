//! The router of this machine: where a port can be asked for, and for which of this machine's addresses.
//!
//! What it is not: talking to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::reach::rendezvous::AddressScope;

/// The default router of IPv4, and the address of this machine that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Router {
    /// Its inner address.
    pub(super) ip: Ipv4Addr,
    /// Ours: where it is to send what comes in.
    pub(super) local: SocketAddr,
}

/// Why there is no router to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRouter {
    #[error("this machine has no router for IPv4")]
    None,
    #[error("this machine has a public IPv4 address, so no port has to be mapped")]
    NotNeeded,
    #[error("the node does not listen on the IPv4 address that the router knows")]
    NotListening,
}

impl Router {
    /// Finds the router for a node with these listening addresses. Blocks for as long as the system takes to list its
    /// interfaces.
    pub(super) fn find(listeners: &[SocketAddr]) -> Result<Self, NoRouter> {
        let interface = netdev::get_default_interface().map_err(|_| NoRouter::None)?;
        let ip = interface.gateway.and_then(|gateway| gateway.ipv4.first().copied()).ok_or(NoRouter::None)?;
        let of_network = interface.ipv4.iter().find(|net| net.contains(&ip)).or_else(|| interface.ipv4.first());
        let local = of_network.map(|net| net.addr()).ok_or(NoRouter::None)?;
        Self::for_listeners(ip, local, listeners)
    }

    fn for_listeners(ip: Ipv4Addr, local: Ipv4Addr, listeners: &[SocketAddr]) -> Result<Self, NoRouter> {
        if AddressScope::of_ip(IpAddr::V4(local)) == Some(AddressScope::Wan) {
            return Err(NoRouter::NotNeeded);
        }
        let fits = |listener: &&SocketAddr| {
            listener.is_ipv4() && (listener.ip().is_unspecified() || listener.ip() == IpAddr::V4(local))
        };
        let listener = listeners.iter().find(fits).ok_or(NoRouter::NotListening)?;
        Ok(Self { ip, local: SocketAddr::new(local.into(), listener.port()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(local: &str, listeners: &[&str]) -> Result<SocketAddr, NoRouter> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        Router::for_listeners(Ipv4Addr::new(192, 168, 1, 1), local.parse().unwrap(), &listeners)
            .map(|router| router.local)
    }

    #[test]
    fn the_router_is_asked_for_the_address_that_it_knows() {
        let local = Ok("192.168.1.7:4600".parse().unwrap());
        assert_eq!(router("192.168.1.7", &["[::]:4600", "0.0.0.0:4600"]), local);
        assert_eq!(router("192.168.1.7", &["192.168.1.7:4600"]), local);
    }

    #[test]
    fn a_node_that_the_router_cannot_reach_or_that_needs_no_port_asks_for_none() {
        assert_eq!(router("192.168.1.7", &["127.0.0.1:4600"]), Err(NoRouter::NotListening));
        assert_eq!(router("192.168.1.7", &["[::]:4600"]), Err(NoRouter::NotListening));
        assert_eq!(router("198.51.100.7", &["0.0.0.0:4600"]), Err(NoRouter::NotNeeded));
    }
}
