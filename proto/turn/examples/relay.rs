//! A TURN relay for one user, whose peers may be on this machine.
//!
//! ```text
//! cargo run -p keyferry-turn --example relay   # says where it is: the example `allocate` can use it
//! ```
//! All sockets are real. A real program waits for them where this one polls, and does not wait for one connection alone.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate has no sockets and no clock, whoever uses it brings them; `allocate` includes this file and leaves out `main`"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use keyferry_turn::{
    UnixTime,
    framing::StunReader,
    peer_policy::PeerPolicy,
    server::{Arrival, Config, ConnectFailed, ListenFailure, Server, ServerOutput, Users},
};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let (listener, server) = open("user", "password")?;
    println!("turn:{} user password", listener.local_addr()?);
    run(server, &listener)
}

/// Opens the relay's port, and makes the server behind it.
pub(crate) fn open(user: &str, password: &str) -> Result<(TcpListener, Server)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let users = Users { named: [(user.to_owned(), password.to_owned())].into(), secret: None };
    // By default no peer in a private network is reached.
    let policy = PeerPolicy {
        allowed: vec!["127.0.0.0/8".parse()?],
        own_ips: vec![addr.ip()],
        own_ports: vec![addr.port()],
        ..PeerPolicy::default()
    };
    Ok((listener, Server::new(Config::default(), users, policy, rand::random(), Instant::now())))
}

/// Drives the server until a socket of its own fails.
pub(crate) fn run(mut server: Server, listener: &TcpListener) -> Result<()> {
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
                // Nobody here has issued credentials: no connection has to begin with checks.
                ServerOutput::Join { client, peer, holder, checks_first: _ } => {
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

/// Moves bytes both ways until both sides have ended. Returns how many.
fn join(client: &TcpStream, peer: &TcpStream) -> io::Result<u64> {
    client.set_nonblocking(false)?;
    peer.set_nonblocking(false)?;
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let copied = io::copy(&mut from, &mut to);
        // Whoever has sent all may still receive.
        to.shutdown(Shutdown::Write).and(copied)
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
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    reader: StunReader,
}

impl Connection {
    pub(crate) fn of(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, reader: StunReader::new() })
    }

    /// The next message, if it has come in; reads in exact lengths, since raw bytes may follow it.
    pub(crate) fn message(&mut self) -> Result<Option<Vec<u8>>> {
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
