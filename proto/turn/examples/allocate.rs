//! A TURN client gets an address at a relay, lets a peer in, and echoes the peer's line.
//!
//! ```text
//! cargo run -p keyferry-turn --example allocate                                     # with a relay in this process
//! cargo run -p keyferry-turn --example allocate turn:192.0.2.1:3478 user password   # with any relay that does RFC 6062
//! ```
//! All sockets are real. A real program waits for them where this one polls.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate has no sockets and no clock; whoever uses it, as this example does, brings them"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use keyferry_turn::{
    AddressFamily, UnixTime,
    client::{self, Client, ClientOptions, ClientOutput, DataId, Ending},
    framing::StunReader,
    long_term::UserCredentials,
    peer_policy::PeerPolicy,
    server::{self, Arrival, ConnectFailed, ListenFailure, Server, ServerOutput, Users},
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const DEADLINE: Duration = Duration::from_secs(20);
const LINE: &[u8; 15] = b"hello, through!";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (relay, user, password) = match args.as_slice() {
        [uri, user, password] => (uri.trim_start_matches("turn:").parse()?, user.as_str(), password.as_str()),
        [] => (start_relay("user", "password")?, "user", "password"),
        _ => return Err("usage: allocate [turn:HOST:PORT USER PASSWORD]".into()),
    };
    use_relay(relay, UserCredentials::new(user, password)?)
}

/// The client: one control connection, and one data connection for each connection with a peer.
fn use_relay(relay: SocketAddr, credentials: UserCredentials) -> Result<()> {
    let started = Instant::now();
    let mut control = Connection::open(relay)?;
    let mut data: BTreeMap<DataId, Connection> = BTreeMap::new();
    let mut peer = None;
    let options = ClientOptions {
        credentials: Some(credentials),
        family: AddressFamily::of(relay.ip()),
        seed: rand::random(),
        config: client::Config::default(),
    };
    let mut client = Client::new(options, started);
    let mut relayed = relay;
    while started.elapsed() < DEADLINE {
        let now = Instant::now();
        // 1. Do what the client wants done.
        while let Some(output) = client.poll_output() {
            match output {
                ClientOutput::Send { message } => control.socket.write_all(&message)?,
                ClientOutput::Allocated(allocated) => {
                    println!("allocated {}", allocated.relayed);
                    relayed = allocated.relayed;
                    // The peer is on this machine, so the relay sees it come from where it sees us come from.
                    client.permit(now, allocated.mapped.ip())?;
                }
                ClientOutput::Permitted { peer: ip } => {
                    println!("let in {ip}");
                    peer = Some(thread::spawn(move || connect_as_peer(relayed)));
                }
                ClientOutput::OpenData { data: id } => {
                    data.insert(id, Connection::open(relay)?);
                    client.data_connected(now, id);
                }
                ClientOutput::SendData { data: id, message } => {
                    data.get_mut(&id).ok_or("no such data connection")?.socket.write_all(&message)?;
                }
                ClientOutput::CloseData { data: id } => drop(data.remove(&id)),
                ClientOutput::Bound { data: id, .. } => {
                    echo(&data.remove(&id).ok_or("no such data connection")?.socket)?;
                    let peer = peer.take().ok_or("there is no peer yet")?;
                    peer.join().map_err(|_| "the peer has panicked")??;
                    println!("the peer got its line back");
                    client.release(now);
                }
                ClientOutput::Ended(Ending::Released) => {
                    println!("given back");
                    return Ok(());
                }
                ClientOutput::PermissionRefused { error, .. } | ClientOutput::ConnectFailed { error, .. } => {
                    return Err(error.into());
                }
                ClientOutput::Ended(ending) => return Err(ending.into()),
            }
        }
        // 2. Pass on what has come in, and the time.
        while let Some(message) = control.message()? {
            client.received(now, &message);
        }
        for (id, connection) in &mut data {
            if let Some(message) = connection.message()? {
                client.data_received(now, *id, &message);
            }
        }
        if client.poll_timeout().is_some_and(|at| at <= now) {
            client.handle_timeout(now);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("the relay is too slow".into())
}

/// The client's end of the connection with the peer, which carries raw bytes now.
fn echo(mut socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let mut line = [0; LINE.len()];
    socket.read_exact(&mut line)?;
    socket.write_all(&line)
}

/// The peer knows nothing of TURN.
fn connect_as_peer(relayed: SocketAddr) -> Result<()> {
    let mut socket = TcpStream::connect_timeout(&relayed, DEADLINE)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.write_all(LINE)?;
    let mut line = [0; LINE.len()];
    socket.read_exact(&mut line)?;
    if &line == LINE { Ok(()) } else { Err("the echo is another line".into()) }
}

/// A relay for one user, whose peers may be on this machine, in a thread that ends with the process.
fn start_relay(user: &str, password: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let users = Users { named: [(user.to_owned(), password.to_owned())].into(), secret: None };
    let policy =
        PeerPolicy { allowed: vec!["127.0.0.0/8".parse()?], own_ips: vec![addr.ip()], own_ports: vec![addr.port()] };
    let server = Server::new(server::Config::default(), users, policy, rand::random(), Instant::now());
    thread::spawn(move || run_relay(server, &listener).map_err(|error| eprintln!("relay: {error}")));
    Ok(addr)
}

fn run_relay(mut server: Server, listener: &TcpListener) -> Result<()> {
    let (mut clients, mut listeners, mut peers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (over, ended) = mpsc::channel();
    loop {
        let now = Instant::now();
        // 1. Do what the server wants done.
        while let Some(output) = server.poll_output() {
            match output {
                ServerOutput::Send { client, message } => {
                    // A connection that breaks is noticed when it is read.
                    clients.get_mut(&client).map(|known: &mut Connection| known.socket.write_all(&message));
                }
                ServerOutput::Close { client } => drop(clients.remove(&client)),
                ServerOutput::Listen { allocation, reached, .. } => {
                    let opened = TcpListener::bind((reached.ip(), 0)).and_then(|listener| {
                        listener.set_nonblocking(true)?;
                        Ok((listener.local_addr()?, listener))
                    });
                    let relayed = opened.map(|(addr, listener)| (addr, listeners.insert(allocation, listener)).0);
                    server.listening(now, allocation, relayed.map_err(|_| ListenFailure::NoPort));
                }
                ServerOutput::StopListening { allocation } => drop(listeners.remove(&allocation)),
                ServerOutput::Connect { peer, to, .. } => {
                    let opened = TcpStream::connect_timeout(&to, Duration::from_secs(1));
                    let result = opened.map(|socket| drop(peers.insert(peer, socket))).map_err(|_| ConnectFailed);
                    server.peer_connected(now, peer, result);
                }
                ServerOutput::ClosePeer { peer } => drop(peers.remove(&peer)),
                ServerOutput::Join { client, peer, holder } => {
                    let (one, other) = (clients.remove(&client), peers.remove(&peer));
                    let (one, other) = (one.ok_or("no client")?.socket, other.ok_or("no peer")?);
                    let over = over.clone();
                    thread::spawn(move || over.send((client, holder, join(&one, &other).unwrap_or(0))));
                }
            }
        }
        // 2. Pass on what has come in, and the time.
        while let Some((socket, remote)) = accept(listener)? {
            let arrival = Arrival { remote, local: socket.local_addr()? };
            clients.insert(server.connected(now, arrival), Connection::of(socket)?);
        }
        for (allocation, listener) in &listeners {
            while let Some((socket, remote)) = accept(listener)? {
                server.peer_accepted(now, *allocation, remote).map(|peer| peers.insert(peer, socket));
            }
        }
        let unix = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        for (client, connection) in &mut clients {
            // One message at a time: after `Join` there are no messages any more.
            match connection.message() {
                Ok(Some(message)) => server.message(now, unix, *client, &message),
                Ok(None) => {}
                Err(_) => server.closed(now, *client),
            }
        }
        for (client, holder, bytes) in ended.try_iter() {
            server.relayed(now, client, &holder, bytes);
            server.closed(now, client);
        }
        if server.poll_timeout().is_some_and(|at| at <= now) {
            server.handle_timeout(now);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Moves bytes both ways until both sides have ended; how many.
fn join(client: &TcpStream, peer: &TcpStream) -> io::Result<u64> {
    client.set_nonblocking(false)?;
    peer.set_nonblocking(false)?;
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let copied = io::copy(&mut from, &mut to);
        // Whoever has sent all may still receive.
        to.shutdown(std::net::Shutdown::Write).and(copied)
    };
    thread::scope(|scope| {
        let back = scope.spawn(|| copy(peer, client));
        Ok(copy(client, peer)? + back.join().unwrap_or(Ok(0))?)
    })
}

fn accept(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    match listener.accept() {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// A connection that carries STUN messages.
struct Connection {
    socket: TcpStream,
    reader: StunReader,
}

impl Connection {
    fn open(to: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&to, DEADLINE)?)
    }

    fn of(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, reader: StunReader::new() })
    }

    /// The next message, if it has come in; reads in exact lengths, since raw bytes may follow it.
    fn message(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = vec![0; self.reader.wanted()];
            match self.socket.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Ok(0) => return Err("the other side has closed the connection".into()),
                Ok(got) => {
                    if let Some(message) = self.reader.push(&bytes[..got])? {
                        return Ok(Some(message));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
