//! One `keyferry_ice::Agent` over real sockets of one address, for tests against other agents and against liars.
//!
//! What it is not: the node's own driver (`keyferry::connect::ice`), which shares its port with everything else. This one is as small
//! as the agent allows, and so shows what a driver has to do.

pub mod check;
pub mod node;

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use keyferry_ice::{
    Agent, AgentOptions, Candidate, CandidateKind, Config, ConnId, ConnectFailure, ConnectMethod, Credentials,
    FailureReason, LocalCandidate, Mapping, Output, Role, Selected, Signal, Source, Stream, TcpType,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
    time::Instant,
};

/// An agent, its listener and its connections. Dropping it closes them.
pub struct IcePeer {
    /// The agent, for tests that look into it.
    pub agent: Agent,
    listener: Arc<TcpListener>,
    addr: SocketAddr,
    conns: HashMap<ConnId, Conn>,
    work: JoinSet<Event>,
    signals: Vec<Signal>,
    attempts: usize,
}

/// How a negotiation ended.
#[derive(Debug)]
pub enum Ended {
    /// With this connection, on which nothing was read or written that is not ICE's.
    Selected(Selected, TcpStream),
    /// Without one.
    Failed(FailureReason),
}

struct Conn {
    writer: Option<OwnedWriteHalf>,
    task: AbortHandle,
}

enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Greeted(io::Result<Vec<u8>>, TcpStream, SocketAddr),
    Connected(ConnId, io::Result<TcpStream>),
    Frame(ConnId, io::Result<Vec<u8>>, OwnedReadHalf),
}

impl IcePeer {
    /// Makes an agent with a listener on a free port of `ip`.
    pub async fn new(ip: IpAddr, role: Role, credentials: Credentials, config: Config) -> Result<Self> {
        let listener = Arc::new(TcpListener::bind((ip, 0)).await?);
        let addr = listener.local_addr()?;
        let options = AgentOptions { stream: Stream::Direct, mapping: Mapping::EndpointIndependent, opening: false };
        let agent = Agent::new(config, role, credentials, options, [7; 32], now());
        let mut peer = Self {
            agent,
            listener,
            addr,
            conns: HashMap::new(),
            work: JoinSet::new(),
            signals: Vec::new(),
            attempts: 0,
        };
        peer.accept_next();
        Ok(peer)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Gives the agent its one host candidate and says that there will be no other.
    pub fn add_host_candidate(&mut self, tcp_type: TcpType) {
        // An active candidate has no port of its own; 9 stands for that (RFC 6544 §4.5).
        let port = if tcp_type == TcpType::Active { 9 } else { self.addr.port() };
        let candidate = Candidate::new(CandidateKind::Host, tcp_type, SocketAddr::new(self.addr.ip(), port), 8191);
        self.agent.add_local_candidates(now(), &[LocalCandidate { candidate, base: self.addr }], true);
    }

    /// The signals that the agent wanted to be carried so far.
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// How many connections the agent has asked for.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    /// Drives the agent to its end.
    pub async fn run(&mut self, within: Duration) -> Result<Ended> {
        tokio::time::timeout(within, self.drive()).await.with_context(|| format!("no end within {within:?}"))?
    }

    async fn drive(&mut self) -> Result<Ended> {
        if let Some(ended) = self.drain(None).await? {
            return Ok(ended);
        }
        loop {
            let timeout = self.agent.poll_timeout().map(Instant::from_std);
            let half = tokio::select! {
                Some(event) = self.work.join_next() => match event {
                    Ok(event) => self.handle(event),
                    Err(error) if error.is_cancelled() => None,
                    Err(error) => return Err(error.into()),
                },
                () = wait_until(timeout) => {
                    self.agent.handle_timeout(now());
                    None
                }
            };
            if let Some(ended) = self.drain(half).await? {
                return Ok(ended);
            }
        }
    }

    /// Tells the agent. Gives back the half from which a frame came, so that nothing is read from it before the agent's
    /// answers are known.
    fn handle(&mut self, event: Event) -> Option<(ConnId, OwnedReadHalf)> {
        match event {
            Event::Accepted(accepted) => {
                if let Ok((mut stream, remote)) = accepted.and_then(at_once) {
                    self.work.spawn(async move { Event::Greeted(read_frame(&mut stream).await, stream, remote) });
                }
                self.accept_next();
                None
            }
            Event::Greeted(frame, stream, remote) => self.greeted(frame.ok()?, stream, remote),
            Event::Connected(conn, Ok(stream)) => {
                let local = stream.local_addr().ok()?;
                let known = self.conns.get_mut(&conn)?;
                let (reader, writer) = stream.into_split();
                known.writer = Some(writer);
                self.agent.connected(now(), conn, local);
                Some((conn, reader))
            }
            Event::Connected(conn, Err(error)) => {
                self.conns.remove(&conn);
                self.agent.connect_failed(now(), conn, failure_of(&error));
                None
            }
            Event::Frame(conn, Ok(message), reader) => {
                self.agent.received(now(), conn, &message);
                Some((conn, reader))
            }
            Event::Frame(conn, Err(_), _) => {
                self.conns.remove(&conn);
                self.agent.closed(now(), conn);
                None
            }
        }
    }

    fn greeted(&mut self, message: Vec<u8>, stream: TcpStream, remote: SocketAddr) -> Option<(ConnId, OwnedReadHalf)> {
        let conn = self.agent.accepted(now(), stream.local_addr().ok()?, remote)?;
        let (reader, writer) = stream.into_split();
        let task = self.work.spawn(pending());
        self.conns.insert(conn, Conn { writer: Some(writer), task });
        self.agent.received(now(), conn, &message);
        Some((conn, reader))
    }

    /// Does what the agent wants; then reads on, if it did not want this connection to be closed or handed over.
    async fn drain(&mut self, mut half: Option<(ConnId, OwnedReadHalf)>) -> Result<Option<Ended>> {
        let mut ended = None;
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Connect { conn, source, remote, method } => self.connect(conn, source, remote, method),
                Output::Send { conn, message } => self.send(conn, &message).await,
                Output::Nominating { .. } => {}
                Output::Close { conn } => self.close(conn),
                Output::Signal(signal) => self.signals.push(signal),
                Output::Failed(reason) => ended = Some(Ended::Failed(reason)),
                Output::Selected(selected) => {
                    let stream = self.hand_over(selected.conn, half.take())?;
                    ended = Some(Ended::Selected(selected, stream));
                }
            }
        }
        if let Some((conn, mut reader)) = half
            && let Some(known) = self.conns.get_mut(&conn)
        {
            known.task = self.work.spawn(async move { Event::Frame(conn, read_frame(&mut reader).await, reader) });
        }
        Ok(ended)
    }

    fn connect(&mut self, conn: ConnId, source: Source, remote: SocketAddr, method: ConnectMethod) {
        self.attempts += 1;
        let task = self.work.spawn(async move {
            let connected = match (source, method) {
                (Source::AnyPort(ip), ConnectMethod::Plain) => connect_from(ip, remote).await,
                _ => Err(io::ErrorKind::Unsupported.into()),
            };
            Event::Connected(conn, connected)
        });
        self.conns.insert(conn, Conn { writer: None, task });
    }

    async fn send(&mut self, conn: ConnId, message: &[u8]) {
        if let Some(writer) = self.conns.get_mut(&conn).and_then(|conn| conn.writer.as_mut()) {
            // What goes wrong here is seen by the reader.
            drop(write_frame(writer, message).await);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.remove(&conn) {
            conn.task.abort();
        }
    }

    fn hand_over(&mut self, conn: ConnId, half: Option<(ConnId, OwnedReadHalf)>) -> Result<TcpStream> {
        let known = self.conns.remove(&conn).context("the selected connection is unknown")?;
        let writer = known.writer.context("the selected connection does not stand")?;
        match half {
            Some((of, reader)) if of == conn => Ok(reader.reunite(writer)?),
            _ => bail!("selected by something else than a frame on that connection"),
        }
    }

    fn accept_next(&mut self) {
        let listener = self.listener.clone();
        self.work.spawn(async move { Event::Accepted(listener.accept().await) });
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

async fn connect_from(ip: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(ip, 0))?;
    Ok(at_once((socket.connect(remote).await?, remote))?.0)
}

/// Has small messages leave at once: two in a row would wait for each other's acknowledgement.
fn at_once((stream, remote): (TcpStream, SocketAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    stream.set_nodelay(true)?;
    Ok((stream, remote))
}

fn failure_of(error: &io::Error) -> ConnectFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ConnectFailure::Refused,
        io::ErrorKind::Unsupported => ConnectFailure::Unsupported,
        _ => ConnectFailure::Other,
    }
}

/// Reads one RFC 4571 frame, and not a byte more.
pub async fn read_frame<R: AsyncReadExt + Unpin>(reader: &mut R) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; usize::from(reader.read_u16().await?)];
    reader.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes one RFC 4571 frame.
pub async fn write_frame<W: AsyncWriteExt + Unpin>(writer: &mut W, payload: &[u8]) -> io::Result<()> {
    let len = u16::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = len.to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}
