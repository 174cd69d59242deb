//! What the user's hints stand for.
//!
//! What it is not: whether these addresses may be dialled (`crate::net::path`).

use std::net::SocketAddr;

use libp2p::{Multiaddr, multiaddr::Protocol};

/// Addresses that a name in a hint may stand for.
const MAX_RESOLVED: usize = 8;

/// The socket addresses that the user's hints stand for; names are looked up.
pub(crate) async fn resolve_hints(hints: &[Multiaddr]) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for hint in hints {
        let mut parts = hint.iter();
        match (parts.next(), parts.next()) {
            (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => addrs.push((ip, port).into()),
            (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port))) => addrs.push((ip, port).into()),
            (Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)), Some(Protocol::Tcp(port))) => {
                match tokio::net::lookup_host((&*name, port)).await {
                    Ok(found) => addrs.extend(found.take(MAX_RESOLVED)),
                    Err(error) => tracing::warn!(%error, "the name in a hint was not resolved"),
                }
            }
            _ => tracing::warn!("a hint is not of the form /ip4/…/tcp/… and is left out"),
        }
    }
    addrs
}
