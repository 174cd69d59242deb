//! libp2p's share of the port, as a libp2p `Transport`: connections that the port handed over, and dials through it.
//!
//! What it is not: encryption or multiplexing, which libp2p puts on top, or a listener.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{Ready, ready},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use tokio::{sync::mpsc, time::Interval};

use super::handshake::{Guarded, Handshakes};
use super::observed::Departures;
use super::scope::{AddressScope, multiaddr_of, socket_addr_of};
use crate::net::port::{Accepted, Port};

/// How often to look at the machine's addresses, since networks come and go.
const INTERFACE_INTERVAL: Duration = Duration::from_secs(3);
/// Addresses that are announced to libp2p.
const MAX_ADDRS: usize = 32;
/// Addresses of a host name that are tried.
const MAX_RESOLVED: usize = 4;

type Event = TransportEvent<Ready<Result<Guarded, io::Error>>, io::Error>;

/// The transport. It has one listener: the port.
pub(super) struct PortTransport {
    port: Arc<Port>,
    incoming: mpsc::Receiver<Accepted>,
    handshakes: Handshakes,
    departures: Departures,
    listener: Option<ListenerId>,
    announced: BTreeSet<SocketAddr>,
    events: VecDeque<Event>,
    look_at_interfaces: Interval,
    /// Somebody else knows that they have changed.
    interfaces_changed: Option<mpsc::Receiver<()>>,
}

impl PortTransport {
    pub(super) fn new(
        port: Arc<Port>,
        incoming: mpsc::Receiver<Accepted>,
        handshakes: Handshakes,
        departures: Departures,
    ) -> Self {
        let mut look_at_interfaces = tokio::time::interval(INTERFACE_INTERVAL);
        look_at_interfaces.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self {
            port,
            incoming,
            handshakes,
            departures,
            listener: None,
            announced: BTreeSet::new(),
            events: VecDeque::new(),
            look_at_interfaces,
            interfaces_changed: None,
        }
    }

    /// Looks at the machine's addresses at each word of this channel, too.
    pub(super) fn looking_when(self, interfaces_changed: mpsc::Receiver<()>) -> Self {
        Self { interfaces_changed: Some(interfaces_changed), ..self }
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>, listener_id: ListenerId) {
        while self.look_at_interfaces.poll_tick(cx).is_ready() {
            self.compare_interfaces(listener_id);
        }
        while let Some(Poll::Ready(Some(()))) = self.interfaces_changed.as_mut().map(|changed| changed.poll_recv(cx)) {
            self.compare_interfaces(listener_id);
        }
    }

    /// Announces addresses that are new, and withdraws those that are gone.
    fn compare_interfaces(&mut self, listener_id: ListenerId) {
        let current = listening_addrs(&self.port);
        for addr in current.difference(&self.announced) {
            self.events.push_back(TransportEvent::NewAddress { listener_id, listen_addr: multiaddr_of(*addr) });
        }
        for addr in self.announced.difference(&current) {
            self.events.push_back(TransportEvent::AddressExpired { listener_id, listen_addr: multiaddr_of(*addr) });
        }
        self.announced = current;
    }
}

impl Transport for PortTransport {
    type Output = Guarded;
    type Error = io::Error;
    type ListenerUpgrade = Ready<Result<Self::Output, io::Error>>;
    type Dial = BoxFuture<'static, Result<Self::Output, io::Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if self.listener.is_some() {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        self.listener = Some(id);
        self.compare_interfaces(id);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|own| *own == id).is_some()
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let target = DialTarget::of(&addr).ok_or(TransportError::MultiaddrNotSupported(addr))?;
        let (port, handshakes, departures) = (self.port.clone(), self.handshakes.clone(), self.departures.clone());
        // libp2p asks for a new port only to call back a peer that wants to know whether it is reachable. That peer
        // names the address, so it must not be one inside our network.
        let called_back = opts.port_use == PortUse::New;
        Ok(Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address that may be dialled");
            for remote in target.resolve().await? {
                let scope = AddressScope::of_ip(remote.ip());
                if !matches!((scope, called_back), (Some(AddressScope::Wan), _) | (Some(AddressScope::Lan), false)) {
                    continue;
                }
                let turn = departures.turn(remote).await;
                let connected = match scope {
                    Some(AddressScope::Wan) if !called_back => port.connect(remote).await,
                    _ => port.connect_from_any_port(remote).await,
                };
                match connected {
                    Ok(stream) => {
                        let departure = departures.note(remote, stream.local_addr()?, turn);
                        return Ok(handshakes.dialled(stream.into(), departure));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let this = &mut *self;
        let Some(listener_id) = this.listener else { return Poll::Pending };
        this.poll_interfaces(cx, listener_id);
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        match this.incoming.poll_recv(cx) {
            Poll::Ready(Some(accepted)) => Poll::Ready(TransportEvent::Incoming {
                listener_id,
                upgrade: ready(Ok(this.handshakes.guard(accepted.stream, accepted.remote))),
                local_addr: multiaddr_of(accepted.local),
                send_back_addr: multiaddr_of(accepted.remote),
            }),
            // The port was closed: nothing comes in any more, dials still work.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// What a multiaddr asks to be dialled.
enum DialTarget {
    Addr(SocketAddr),
    Name { host: String, port: u16, wants: fn(&SocketAddr) -> bool },
}

impl DialTarget {
    fn of(addr: &Multiaddr) -> Option<DialTarget> {
        if let Some(addr) = socket_addr_of(addr) {
            return Some(DialTarget::Addr(addr));
        }
        let mut parts = addr.iter();
        let (host, wants): (_, fn(&SocketAddr) -> bool) = match parts.next()? {
            Protocol::Dns(host) => (host, |_| true),
            Protocol::Dns4(host) => (host, SocketAddr::is_ipv4),
            Protocol::Dns6(host) => (host, SocketAddr::is_ipv6),
            _ => return None,
        };
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Protocol::Tcp(port)), None | Some(Protocol::P2p(_)), None) if port != 0 => {
                Some(DialTarget::Name { host: host.into_owned(), port, wants })
            }
            _ => None,
        }
    }

    async fn resolve(self) -> io::Result<Vec<SocketAddr>> {
        match self {
            DialTarget::Addr(addr) => Ok(vec![addr]),
            DialTarget::Name { host, port, wants } => {
                let found = tokio::net::lookup_host((host, port)).await?;
                Ok(found.filter(wants).take(MAX_RESOLVED).collect())
            }
        }
    }
}

/// The addresses at which the port can be reached: as bound, with those of the interfaces for unspecified ones.
pub(super) fn listening_addrs(port: &Port) -> BTreeSet<SocketAddr> {
    let mut addrs = BTreeSet::new();
    for local in port.local_addrs() {
        if !local.ip().is_unspecified() {
            addrs.insert(*local);
            continue;
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::debug!(%error, "the machine's addresses are not known");
            Vec::new()
        });
        let ips = interfaces.into_iter().map(|interface| interface.ip());
        addrs.extend(
            ips.filter(|ip| ip.is_ipv4() == local.is_ipv4() && AddressScope::of_ip(*ip).is_some())
                .map(|ip| SocketAddr::new(ip, local.port())),
        );
    }
    addrs.into_iter().take(MAX_ADDRS).collect()
}
