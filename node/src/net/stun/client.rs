//! Asking a STUN server over TCP from which address a connection comes (RFC 8489 §6.2.2), and holding that mapping.
//!
//! What it is not: a choice of servers, or a judgement on what they say; see [`crate::reach::gather`].

use std::{io, net::SocketAddr, time::Duration};

use keyferry_ice::{ConnectFailure, ConnectMethod, Source};
use stun_types::{
    attribute::{ErrorCode, XorMappedAddress},
    message::{BINDING, Message, MessageClass, MessageWriteVec},
    prelude::*,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::read;
use crate::{
    base::traffic::{ByteCount, Traffic, TrafficPurpose},
    net::port::{Connecting, Port},
};

/// How long a server may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to answer on a connection that stands. TCP repeats what is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server did not tell the address.
#[derive(Debug, thiserror::Error)]
pub enum StunAskError {
    /// The node does not listen on the server's address family.
    #[error("this node has no address of that family")]
    NoSource,
    /// No connection.
    #[error("not connected: {0}")]
    Connect(#[from] ConnectFailure),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// An error response.
    #[error("the server refused with code {0}")]
    Refused(u16),
    /// The answer does not belong to the request.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(&'static str),
}

/// A connection to a STUN server, which has told its address at least once. While it stands, so does the NAT's mapping.
#[derive(Debug)]
pub struct StunClient {
    stream: TcpStream,
    local: SocketAddr,
    server: SocketAddr,
    mapped: SocketAddr,
    traffic: Traffic,
}

/// Connects to `server` from the node's own port, and asks.
///
/// There cannot be two connections from one port to one server: where one is up, this fails with
/// [`ConnectFailure::AddrInUse`].
pub async fn ask(port: &Port, server: SocketAddr) -> Result<StunClient, StunAskError> {
    let source = port.source_for(server).ok_or(StunAskError::NoSource)?;
    StunClient::connect_counted(Source::Port(source), server, port.traffic().clone()).await
}

impl StunClient {
    /// Connects to `server` from `source`, and asks.
    pub async fn connect(source: Source, server: SocketAddr) -> Result<Self, StunAskError> {
        Self::connect_counted(source, server, Traffic::default()).await
    }

    async fn connect_counted(source: Source, server: SocketAddr, traffic: Traffic) -> Result<Self, StunAskError> {
        let connecting = Connecting::start(source, server, ConnectMethod::Plain)?;
        let connected = timeout(CONNECT_TIMEOUT, connecting.established()).await;
        let stream = connected.unwrap_or(Err(ConnectFailure::TimedOut))?;
        let local = stream.local_addr()?;
        let mut client = Self { stream, local, server, mapped: local, traffic };
        client.repeat().await?;
        Ok(client)
    }

    /// The address of this machine from which the connection left.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The address that the server saw last.
    pub fn mapped(&self) -> SocketAddr {
        self.mapped
    }

    /// Asks again, and returns what the server sees now. After an error the connection is of no more use.
    pub async fn repeat(&mut self) -> Result<SocketAddr, StunAskError> {
        self.mapped = timeout(ANSWER_TIMEOUT, self.exchange()).await.map_err(|_| StunAskError::TimedOut)??;
        Ok(self.mapped)
    }

    /// Asks again every so often, so that the mapping stays. Returns when the server sees another address than before, or
    /// at once when the connection dies.
    pub async fn hold(&mut self, every: Duration) -> Result<SocketAddr, StunAskError> {
        let before = self.mapped;
        loop {
            timeout(every, self.unasked()).await.unwrap_or(Ok(()))?;
            if self.repeat().await? != before {
                return Ok(self.mapped);
            }
        }
    }

    /// Ends when the server closes the connection, or sends what nobody asked for.
    async fn unasked(&self) -> Result<(), StunAskError> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut [0]) {
                Ok(0) => return Err(StunAskError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => return Err(StunAskError::Malformed("a message that nobody asked for")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn exchange(&mut self) -> Result<SocketAddr, StunAskError> {
        let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
        self.stream.write_all(&request).await?;
        self.traffic.count(TrafficPurpose::Stun, ByteCount::sent(request.len()));
        let answer = read::plain(&mut self.stream).await?;
        self.traffic.count(TrafficPurpose::Stun, ByteCount::received(answer.len()));
        let address = mapped_address(&request, &answer)?;
        if address.is_ipv4() != self.local.is_ipv4() {
            return Err(StunAskError::Malformed("an address of another family"));
        }
        Ok(address)
    }
}

/// The address in a server's answer to `request`.
fn mapped_address(request: &[u8], answer: &[u8]) -> Result<SocketAddr, StunAskError> {
    let not_stun = |_| StunAskError::Malformed("not a STUN message");
    let asked = Message::from_bytes(request).map_err(not_stun)?;
    let answer = Message::from_bytes(answer).map_err(not_stun)?;
    if answer.transaction_id() != asked.transaction_id() || !answer.has_method(BINDING) {
        return Err(StunAskError::Malformed("an answer to something else"));
    }
    match answer.class() {
        MessageClass::Success => {
            let mapped = answer.attribute::<XorMappedAddress>();
            let mapped = mapped.map_err(|_| StunAskError::Malformed("it has no XOR-MAPPED-ADDRESS"))?;
            Ok(mapped.addr(answer.transaction_id()))
        }
        MessageClass::Error => {
            Err(StunAskError::Refused(answer.attribute::<ErrorCode>().map_or(0, |error| error.code())))
        }
        _ => Err(StunAskError::Malformed("a request")),
    }
}
