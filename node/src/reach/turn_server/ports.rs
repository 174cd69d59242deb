//! The sockets of relayed addresses: listeners in a range of ports, and connections that leave from them.
//!
//! What it is not: who may connect, or be connected to.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use if_addrs::IfAddr;
use keyferry_net::ip::{Class, Network};
use keyferry_turn::{
    AddressFamily,
    server::{AllocationId, ListenFailure},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::PortRange;
use crate::net::port::socket::{allow_sharing, new_socket};

/// How many connections of peers the kernel may hold between two calls of accept.
const BACKLOG: i32 = 128;
/// How many addresses at which others see this machine are believed.
const MAX_SEEN_AT: usize = 8;
/// How many ports to try for one allocation. In a range that is half full, all of them are taken once in four billion times.
const TRIES: u16 = 32;

/// The relayed addresses of this machine.
#[derive(Debug)]
pub(super) struct Ports {
    range: PortRange,
    external: Vec<IpAddr>,
    /// Where others see this machine, if not at `external`.
    seen_at: Vec<IpAddr>,
    bound: BTreeMap<AllocationId, Bound>,
}

/// Where this machine stands.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Its addresses, those that a NAT in front of it has among them.
    pub(super) own_ips: Vec<IpAddr>,
    /// The networks of its interfaces.
    pub(super) on_link: Vec<Network>,
}

/// A relayed address, as bound and as told.
#[derive(Debug, Clone, Copy)]
struct Bound {
    local: SocketAddr,
    told: SocketAddr,
}

impl Ports {
    pub(super) fn new(range: PortRange, external: Vec<IpAddr>) -> Self {
        Self { range, external, seen_at: Vec::new(), bound: BTreeMap::new() }
    }

    /// Learns at which addresses others see this machine: those of a NAT in front of it, which may lead back inside.
    pub(super) fn seen_at(&mut self, mut ips: Vec<IpAddr>) {
        ips.truncate(MAX_SEEN_AT);
        self.seen_at = ips;
    }

    /// The addresses of this machine, and what is beside it.
    pub(super) fn surroundings(&self) -> io::Result<Surroundings> {
        let interfaces = if_addrs::get_if_addrs()?;
        let own = interfaces.iter().map(|interface| interface.ip());
        let on_link = interfaces.iter().map(|interface| match &interface.addr {
            IfAddr::V4(addr) => Network::new(addr.ip.into(), addr.prefixlen),
            IfAddr::V6(addr) => Network::new(addr.ip.into(), addr.prefixlen),
        });
        Ok(Surroundings {
            own_ips: own.chain(self.external.iter().chain(&self.seen_at).copied()).collect(),
            on_link: on_link.collect(),
        })
    }

    /// Listens for an allocation, if possible on the address that its client has reached; returns the relayed address, in the form
    /// that clients shall know.
    pub(super) fn listen(
        &mut self,
        allocation: AllocationId,
        family: AddressFamily,
        reached: SocketAddr,
    ) -> Result<(TcpListener, SocketAddr), ListenFailure> {
        let reached = reached.ip().to_canonical();
        let ip = if AddressFamily::of(reached) == family { Some(reached) } else { other_family(family, reached) };
        let ip = ip.ok_or(ListenFailure::NoSuchFamily)?;
        let first = rand::random_range(0..=self.range.last - self.range.first);
        for number in 0..TRIES {
            let span = u32::from(self.range.last - self.range.first) + 1;
            // Steps by a large odd number, to get away from neighbours that are taken together.
            let offset = (u32::from(first) + u32::from(number) * 7919) % span;
            let port = self.range.first + u16::try_from(offset).unwrap_or(0);
            match listen(SocketAddr::new(ip, port)) {
                Ok(listener) => {
                    let local = listener.local_addr().map_err(|_| ListenFailure::NoPort)?;
                    let told = SocketAddr::new(self.external_of(local.ip()), local.port());
                    // A NAT may show two addresses of this machine as one: then a port is given once.
                    if self.bound.values().all(|bound| bound.told != told) {
                        self.bound.insert(allocation, Bound { local, told });
                        return Ok((listener, told));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Err(ListenFailure::NoSuchFamily);
                }
                Err(error) => {
                    tracing::debug!(%error, "no relayed port");
                    return Err(ListenFailure::NoPort);
                }
            }
        }
        Err(ListenFailure::NoPort)
    }

    pub(super) fn forget(&mut self, allocation: AllocationId) {
        self.bound.remove(&allocation);
    }

    /// Connects from the relayed address of an allocation (RFC 6062 §5.2), or from another port of its IP where that one is still in
    /// TIME_WAIT with this peer.
    pub(super) fn connect(
        &self,
        allocation: AllocationId,
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + use<> {
        let from = self.bound.get(&allocation).map(|bound| bound.local);
        // A relayed address of this relay is reached within the machine: not every NAT leads back.
        let to = self.bound.values().find(|bound| bound.told == to).map_or(to, |bound| bound.local);
        async move {
            let from = from.ok_or(io::ErrorKind::NotConnected)?;
            match connect(from, to).await {
                Err(error) if is_taken(&error) => connect(SocketAddr::new(from.ip(), 0), to).await,
                result => result,
            }
        }
    }

    /// The address of a peer, as clients know it: clients of this relay by their relayed address.
    pub(super) fn told(&self, remote: SocketAddr) -> SocketAddr {
        let is_own = self.bound.values().any(|bound| bound.local.ip() == remote.ip());
        let ip = if is_own { self.external_of(remote.ip()) } else { remote.ip() };
        SocketAddr::new(ip, remote.port())
    }

    fn external_of(&self, ip: IpAddr) -> IpAddr {
        self.external.iter().copied().find(|external| external.is_ipv4() == ip.is_ipv4()).unwrap_or(ip)
    }
}

/// Listens, and lets connections leave from the same port. Nobody else can listen on it: the port is taken before it may be shared.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    allow_sharing(&socket)?;
    TcpListener::from_std(socket.into())
}

async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket(to)?;
    if from.port() != 0 {
        allow_sharing(&socket)?;
    }
    socket.bind(&from.into())?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    // TCP lets a socket open a connection to itself.
    if stream.local_addr()? == to { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(stream) }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// An address of this machine of a family that the client has not reached: as near as the one it has reached.
fn other_family(family: AddressFamily, reached: IpAddr) -> Option<IpAddr> {
    if reached.is_loopback() {
        return Some(match family {
            AddressFamily::V4 => Ipv4Addr::LOCALHOST.into(),
            AddressFamily::V6 => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let ips = interfaces.iter().map(|interface| interface.ip());
    let is_far = |ip: &IpAddr| !matches!(Class::of(*ip), Class::Loopback | Class::LinkLocal);
    let fits = |ip: &IpAddr| AddressFamily::of(*ip) == family && is_far(ip);
    // Public ones before private ones.
    ips.filter(fits).min_by_key(|ip| Class::of(*ip) != Class::Global)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_connection_leaves_from_the_relayed_address_and_nobody_else_can_listen_there() {
        let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = listen(addr("127.0.0.1:0")).unwrap();
        let relayed = listener.local_addr().unwrap();
        let to = peer.local_addr().unwrap();
        let (outgoing, accepted) = tokio::join!(connect(relayed, to), peer.accept());
        assert_eq!(accepted.unwrap().1, relayed);
        assert!(outgoing.unwrap().nodelay().unwrap());
        assert_eq!(listen(relayed).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let (_, incoming) = tokio::join!(TcpStream::connect(relayed), listener.accept());
        incoming.unwrap();
    }

    #[tokio::test]
    async fn a_relayed_address_connected_to_itself_is_refused() {
        let listener = listen(addr("127.0.0.1:0")).unwrap();
        let relayed = listener.local_addr().unwrap();
        drop(listener);
        assert!(connect(relayed, relayed).await.is_err());
    }
}
