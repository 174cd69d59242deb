//! Two ICE agents on one machine find a TCP connection between them, and send a line each way on it.
//!
//! ```text
//! cargo run -p keyferry-ice --example two_agents
//! ```
//! Each agent has a thread with its own loop. Two channels stand for the signalling, which carries descriptions and signals. A real
//! program waits for its sockets where this one polls them, and gathers more than the loopback address.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate has no sockets and no clock; whoever uses it, as this example does, brings them"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use keyferry_ice::{
    Agent, AgentOptions, Candidate, CandidateKind, Config, ConnId, ConnectFailure, ConnectMethod, Credentials,
    Description, FrameReader, LocalCandidate, Mapping, Output, Role, Selected, Signal, Source, Stream, TcpType,
    addressed_ufrag, frame,
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const DEADLINE: Duration = Duration::from_secs(20);
const LINE_LEN: usize = 16; // "hello from alice"

/// What one side sends the other over the signalling channel, in this order.
enum Message {
    Description(Description),
    Signal(Signal),
}

fn main() -> Result<()> {
    let (to_bob, from_alice) = mpsc::channel();
    let (to_alice, from_bob) = mpsc::channel();
    let alice = thread::spawn(move || run("alice", Role::Controlling, to_bob, &from_bob));
    let bob = thread::spawn(move || run("bob", Role::Controlled, to_alice, &from_alice));
    let heard = [alice, bob].map(|side| side.join().unwrap_or_else(|_| Err("a side has panicked".into())));
    let [by_alice, by_bob] = heard;
    if (by_alice?, by_bob?) != (line_of("bob"), line_of("alice")) {
        return Err("the connection carried other bytes than were sent".into());
    }
    println!("both lines have arrived");
    Ok(())
}

/// Negotiates, sends this side's line over the connection that was selected, and returns the peer's.
fn run(name: &str, role: Role, to_peer: Sender<Message>, from_peer: &Receiver<Message>) -> Result<[u8; LINE_LEN]> {
    let started = Instant::now();
    let mut side = Side::new(role, to_peer)?;
    let selected = loop {
        let now = Instant::now();
        if now > started + DEADLINE {
            return Err(format!("{name} has found no connection in time").into());
        }
        for message in from_peer.try_iter() {
            match message {
                Message::Description(remote) => side.agent.set_remote(now, remote)?,
                Message::Signal(signal) => side.agent.handle_signal(now, signal)?,
            }
        }
        side.accept()?;
        if side.agent.poll_timeout().is_some_and(|at| at <= now) {
            side.agent.handle_timeout(now);
        }
        side.act(now)?;
        side.read(now)?;
        if let Some(selected) = side.selected.take() {
            break selected;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let mut connection = side.take_over(&selected).ok_or("the selected connection is gone")?;
    println!(
        "{name} chose {:?} {} to {:?} {}: {}",
        selected.local_kind,
        connection.local_addr()?,
        selected.remote_kind,
        selected.remote,
        selected.strategy
    );
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.write_all(&line_of(name))?;
    let mut line = [0; LINE_LEN];
    connection.read_exact(&mut line)?;
    Ok(line)
}

/// An agent with the sockets that it decides upon.
struct Side {
    agent: Agent,
    ufrag: String,
    listener: TcpListener,
    local: SocketAddr,
    connections: BTreeMap<u64, Connection>,
    last_key: u64,
    selected: Option<Selected>,
    to_peer: Sender<Message>,
}

struct Connection {
    socket: TcpStream,
    remote: SocketAddr,
    reader: FrameReader,
    /// The agent's name for it; `None` for an accepted one until its first message has said for whom it is.
    id: Option<ConnId>,
}

impl Side {
    /// Gathers candidates, makes an agent and tells the peer of it.
    fn new(role: Role, to_peer: Sender<Message>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let credentials = Credentials::from_random(&rand::random());
        let ufrag = credentials.ufrag.clone();
        let options = AgentOptions { stream: Stream::Direct, mapping: Mapping::EndpointIndependent, opening: false };
        let now = Instant::now();
        let mut agent = Agent::new(Config::default(), role, credentials, options, rand::random(), now);
        let candidates = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen].map(|tcp_type| {
            LocalCandidate { candidate: Candidate::new(CandidateKind::Host, tcp_type, local, 0), base: local }
        });
        agent.add_local_candidates(now, &candidates, true);
        to_peer.send(Message::Description(agent.description()))?;
        let connections = BTreeMap::new();
        Ok(Self { agent, ufrag, listener, local, connections, last_key: 0, selected: None, to_peer })
    }

    /// Does what the agent wants done.
    fn act(&mut self, now: Instant) -> Result<()> {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Connect { conn, source, remote, method } => match dial(source, remote, method) {
                    Ok(socket) => {
                        let local = socket.local_addr()?;
                        self.add(socket, remote, Some(conn))?;
                        self.agent.connected(now, conn, local);
                    }
                    Err(failure) => self.agent.connect_failed(now, conn, failure),
                },
                Output::Send { conn, message } => {
                    let framed = frame(&message).ok_or("a message of the agent is too long")?;
                    // A connection that breaks is noticed when it is read.
                    self.find(conn).map(|known| known.socket.write_all(&framed));
                }
                // The peer may still say no, and this side does not mind to wait for its answer.
                Output::Nominating { .. } => {}
                Output::Close { conn } => self.connections.retain(|_, known| known.id != Some(conn)),
                // A peer that has ended listens no more.
                Output::Signal(signal) => drop(self.to_peer.send(Message::Signal(signal))),
                Output::Selected(selected) => self.selected = Some(selected),
                Output::Failed(reason) => return Err(reason.into()),
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, remote)) => self.add(socket, remote, None)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what has come in, in exact lengths: behind the last frame are raw bytes, which are not the agent's.
    fn read(&mut self, now: Instant) -> Result<()> {
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            while self.selected.is_none()
                && let Some(known) = self.connections.get_mut(&key)
            {
                let mut bytes = vec![0; known.reader.wanted()];
                let read = match known.socket.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(0) | Err(_) => None,
                    Ok(got) => known.reader.push(&bytes[..got]).ok(),
                };
                match read {
                    Some(Some(message)) => self.received(now, key, &message),
                    Some(None) => {}
                    None => self.lose(now, key),
                }
                self.act(now)?;
            }
        }
        Ok(())
    }

    /// Passes a message to the agent. The first one on an accepted connection says for which agent it is.
    fn received(&mut self, now: Instant, key: u64, message: &[u8]) {
        let Some(known) = self.connections.get_mut(&key) else { return };
        if known.id.is_none() && addressed_ufrag(message).as_ref() == Some(&self.ufrag) {
            known.id = self.agent.accepted(now, self.local, known.remote);
        }
        match known.id {
            Some(id) => self.agent.received(now, id, message),
            None => drop(self.connections.remove(&key)),
        }
    }

    fn lose(&mut self, now: Instant, key: u64) {
        if let Some(id) = self.connections.remove(&key).and_then(|known| known.id) {
            self.agent.closed(now, id);
        }
    }

    fn add(&mut self, socket: TcpStream, remote: SocketAddr, id: Option<ConnId>) -> Result<()> {
        socket.set_nonblocking(true)?;
        self.last_key += 1;
        self.connections.insert(self.last_key, Connection { socket, remote, reader: FrameReader::new(), id });
        Ok(())
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.values_mut().find(|known| known.id == Some(id))
    }

    fn take_over(&mut self, selected: &Selected) -> Option<TcpStream> {
        self.find(selected.conn)?.socket.try_clone().ok()
    }
}

/// Connects. The standard library cannot choose the port or the TTL, as the so candidates ask for; the crate `socket2` can.
fn dial(source: Source, remote: SocketAddr, method: ConnectMethod) -> Result<TcpStream, ConnectFailure> {
    match (source, method) {
        (Source::AnyPort(_), ConnectMethod::Plain) => TcpStream::connect_timeout(&remote, Duration::from_secs(1))
            .map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused => ConnectFailure::Refused,
                ErrorKind::TimedOut => ConnectFailure::TimedOut,
                _ => ConnectFailure::Other,
            }),
        _ => Err(ConnectFailure::Unsupported),
    }
}

fn line_of(name: &str) -> [u8; LINE_LEN] {
    let mut line = [b' '; LINE_LEN];
    line.iter_mut().zip(format!("hello from {name}").bytes()).for_each(|(place, byte)| *place = byte);
    line
}
