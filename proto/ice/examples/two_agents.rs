//! Two ICE agents on one machine find a TCP connection between them, and send a line each way on it.
//!
//! ```text
//! cargo run -p keyferry-ice --example two_agents
//! ```
//! The steps are those of the crate page. Two channels between two threads stand for the signalling. A real program waits for its
//! sockets where this one polls them, and gathers more than the loopback address.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate has no sockets and no clock; whoever uses it, as this example does, brings them"
)]

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use keyferry_ice::{
    Agent, AgentOptions, Candidate, CandidateKind, Config, ConnId, ConnectFailure, ConnectMethod, Credentials,
    FrameReader, LocalCandidate, Mapping, Output, Role, Selected, Signal, Source, Stream, TcpType, addressed_ufrag,
    frame,
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// An agent with the sockets that it decides upon.
struct Side {
    agent: Agent,
    listener: TcpListener,
    connections: Vec<Connection>,
    to_peer: Sender<Signal>,
}

struct Connection {
    socket: TcpStream,
    remote: SocketAddr,
    reader: FrameReader,
    /// The agent's name for it; `None` for an accepted one until its first message has said for whom it is.
    id: Option<ConnId>,
}

fn main() -> Result<()> {
    let (to_bob, from_alice) = mpsc::channel();
    let (to_alice, from_bob) = mpsc::channel();
    // Step 1. The descriptions are the first that the signalling carries.
    let mut alice = Side::new(Role::Controlling, to_bob)?;
    let mut bob = Side::new(Role::Controlled, to_alice)?;
    alice.agent.set_remote(Instant::now(), bob.agent.description())?;
    bob.agent.set_remote(Instant::now(), alice.agent.description())?;
    let alice = thread::spawn(move || run("alice", alice, &from_bob));
    let bob = thread::spawn(move || run("bob", bob, &from_alice));
    let [by_alice, by_bob] = [alice, bob].map(|side| side.join().expect("neither side panics"));
    assert_eq!([by_alice?, by_bob?], [line_of("bob"), line_of("alice")]);
    println!("both lines have arrived");
    Ok(())
}

/// Negotiates, sends this side's line over the selected connection, and returns the peer's.
fn run(name: &str, mut side: Side, from_peer: &Receiver<Signal>) -> Result<String> {
    let selected = loop {
        let now = Instant::now();
        for signal in from_peer.try_iter() {
            side.agent.handle_signal(now, signal)?; // step 2
        }
        side.read(now)?; // step 3
        if side.agent.poll_timeout().is_some_and(|at| at <= now) {
            side.agent.handle_timeout(now); // step 4
        }
        if let Some(selected) = side.act(now)? {
            break selected; // step 5
        }
        thread::sleep(Duration::from_millis(1));
    };
    let Selected { conn, remote, local_kind, remote_kind, strategy, .. } = selected;
    let socket = &mut side.find(conn).ok_or("the selected connection is gone")?.socket;
    println!("{name} chose {local_kind:?} {} to {remote_kind:?} {remote}: {strategy}", socket.local_addr()?);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = line_of(name).into_bytes();
    socket.write_all(&line)?;
    socket.read_exact(&mut line)?; // all lines have the same length
    Ok(String::from_utf8(line)?)
}

fn line_of(name: &str) -> String {
    format!("hello from {name:<5}")
}

impl Side {
    /// Makes an agent, and gathers its candidates.
    fn new(role: Role, to_peer: Sender<Signal>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let credentials = Credentials::from_random(&rand::random());
        let options = AgentOptions { stream: Stream::Direct, mapping: Mapping::EndpointIndependent, opening: false };
        let now = Instant::now();
        let mut agent = Agent::new(Config::default(), role, credentials, options, rand::random(), now);
        let candidates = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen].map(|tcp_type| {
            LocalCandidate { candidate: Candidate::new(CandidateKind::Host, tcp_type, local, 0), base: local }
        });
        agent.add_local_candidates(now, &candidates, true);
        Ok(Self { agent, listener, connections: Vec::new(), to_peer })
    }

    /// Accepts connections, and passes one message of each to the agent; [`Self::act`] comes before the next.
    fn read(&mut self, now: Instant) -> Result<()> {
        while let Ok((socket, remote)) = self.listener.accept() {
            self.connections.push(Connection::new(socket, remote, None)?);
        }
        for mut connection in std::mem::take(&mut self.connections) {
            match connection.next_message() {
                Ok(None) => self.connections.push(connection),
                Ok(Some(message)) => {
                    // The first message on an accepted connection says for which agent it is.
                    if connection.id.is_none() && addressed_ufrag(&message) == Some(self.agent.description().ufrag) {
                        connection.id = self.agent.accepted(now, self.listener.local_addr()?, connection.remote);
                    }
                    if let Some(id) = connection.id {
                        self.agent.received(now, id, &message);
                        self.connections.push(connection);
                    }
                }
                Err(_) => connection.id.into_iter().for_each(|id| self.agent.closed(now, id)),
            }
        }
        Ok(())
    }

    /// Does what the agent wants done; returns the connection that both sides agreed on, once there is one.
    fn act(&mut self, now: Instant) -> Result<Option<Selected>> {
        let mut selected = None;
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Connect { conn, source, remote, method } => match dial(source, remote, method) {
                    Ok(socket) => {
                        let local = socket.local_addr()?;
                        self.connections.push(Connection::new(socket, remote, Some(conn))?);
                        self.agent.connected(now, conn, local);
                    }
                    Err(failure) => self.agent.connect_failed(now, conn, failure),
                },
                Output::Send { conn, message } => {
                    let framed = frame(&message).ok_or("a message of the agent is too long")?;
                    // A connection that breaks shows it when it is read.
                    self.find(conn).map(|connection| connection.socket.write_all(&framed));
                }
                // Raw bytes may follow at once. This side prefers to wait until the peer has agreed.
                Output::Nominating { .. } => {}
                Output::Close { conn } => self.connections.retain(|connection| connection.id != Some(conn)),
                // A peer that has ended listens no more.
                Output::Signal(signal) => drop(self.to_peer.send(signal)),
                Output::Selected(pair) => selected = Some(pair),
                Output::Failed(reason) => return Err(reason.into()),
            }
        }
        Ok(selected)
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == Some(id))
    }
}

impl Connection {
    fn new(socket: TcpStream, remote: SocketAddr, id: Option<ConnId>) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, remote, reader: FrameReader::new(), id })
    }

    /// The next message, if all of it is there. Reads exact lengths: the bytes behind the last message are raw, and not the agent's.
    fn next_message(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = vec![0; self.reader.wanted()];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err("the peer has closed the connection".into()),
                Ok(got) => match self.reader.push(&bytes[..got])? {
                    Some(message) => return Ok(Some(message)),
                    None => continue,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects. The standard library cannot choose the port or the TTL, as simultaneous-open candidates ask for; the crate `socket2` can.
fn dial(source: Source, remote: SocketAddr, method: ConnectMethod) -> Result<TcpStream, ConnectFailure> {
    let (Source::AnyPort(_), ConnectMethod::Plain) = (source, method) else { return Err(ConnectFailure::Unsupported) };
    TcpStream::connect_timeout(&remote, Duration::from_secs(1)).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => ConnectFailure::Refused,
        _ => ConnectFailure::Other,
    })
}
