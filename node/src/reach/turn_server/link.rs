//! What the tasks of a relay tell each other: the clients' tasks the actor, the actor the clients' tasks, and all of them the counters.
//!
//! What it is not: any of these tasks.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use keyferry_turn::server::{AllocationId, Arrival, ClientId, Holder, PeerId};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::rates::HolderShare;
use crate::base::counters::counters;

/// A client's connection: plain, or TLS.
pub(super) type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What happens, for the actor.
pub(super) enum RelayInput {
    /// A client has connected.
    Client { stream: ClientStream, arrival: Arrival, first: Option<Vec<u8>> },
    /// A client has sent a message. `taken` is told once what follows from it is on its way.
    Message { client: ClientId, message: Vec<u8>, taken: oneshot::Sender<()> },
    /// A client's connection is over.
    Closed { client: ClientId },
    /// A connection that had to begin with checks has not.
    Unchecked { client: ClientId },
    /// Bytes were moved on a joined connection.
    Relayed { client: ClientId, holder: Holder, bytes: u64 },
    /// A peer has connected to a relayed address.
    Peer { allocation: AllocationId, stream: TcpStream, remote: SocketAddr },
    /// A connect has ended.
    Connected { peer: PeerId, result: io::Result<TcpStream> },
    /// Others see this machine at these addresses.
    SeenAt(Vec<IpAddr>),
}

/// What a client's task is told.
pub(super) enum ClientCommand {
    /// Write this message.
    Send(Vec<u8>),
    /// From here on, the connection carries a peer's bytes.
    Join(Joined),
    /// Close it.
    Close,
}

/// A peer to be joined with.
pub(super) struct Joined {
    pub(super) peer: TcpStream,
    pub(super) share: Option<HolderShare>,
    pub(super) holder: Holder,
    /// Whether both have to begin with a check.
    pub(super) checks_first: bool,
}

/// The way from a client's task to the actor.
pub(super) struct Link {
    pub(super) client: ClientId,
    pub(super) inputs: mpsc::Sender<RelayInput>,
    pub(super) traffic: Arc<RelayTraffic>,
}

counters! {
    /// What the driver itself counts.
    pub(super) struct RelayTraffic {
        /// Bytes relayed within the kernel.
        pub(super) spliced_bytes = "relay_spliced_bytes",
        /// Bytes relayed through this process.
        pub(super) copied_bytes = "relay_copied_bytes",
        /// Closed: the TLS handshake failed or took too long.
        pub(super) handshakes_failed = "relay_closed_handshake_failed",
        /// Closed: too much waited for the relay.
        pub(super) busy = "relay_closed_busy",
    }
}
