//! A TURN client gets an address at a relay, lets a peer in, and echoes the peer's line.
//!
//! ```text
//! cargo run -p keyferry-turn --example allocate                                     # with a relay in this process
//! cargo run -p keyferry-turn --example allocate turn:relay.example:3478 user password   # with any relay that does RFC 6062
//! ```
//! The relay of this process is the example `relay`. All sockets are real. A real program waits for them where this one polls.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate has no sockets and no clock; whoever uses it, as this example does, brings them"
)]

mod relay;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use keyferry_turn::{
    AddressFamily,
    client::{Client, ClientOptions, ClientOutput, Config, DataId, Ending},
    long_term::UserCredentials,
};
use relay::{Connection, Result};

const DEADLINE: Duration = Duration::from_secs(20);
const LINE: &[u8; 15] = b"hello, through!";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (server, user, password) = match args.as_slice() {
        [uri, user, password] => (uri.trim_start_matches("turn:").to_owned(), user.as_str(), password.as_str()),
        [] => (start_relay("user", "password")?.to_string(), "user", "password"),
        _ => return Err("usage: allocate [turn:HOST:PORT USER PASSWORD]".into()),
    };
    // The first address of the name at which somebody listens.
    let control = TcpStream::connect(server)?;
    use_relay(control, UserCredentials::new(user, password)?)
}

/// A relay in a thread that ends with the process.
fn start_relay(user: &str, password: &str) -> Result<SocketAddr> {
    let (listener, server) = relay::open(user, password)?;
    let addr = listener.local_addr()?;
    thread::spawn(move || relay::run(server, &listener).map_err(|error| eprintln!("relay: {error}")));
    Ok(addr)
}

/// The client: one control connection, and one data connection for each connection with a peer.
fn use_relay(control: TcpStream, credentials: UserCredentials) -> Result<()> {
    let started = Instant::now();
    let server = control.peer_addr()?;
    let mut control = Connection::of(control)?;
    let mut data: BTreeMap<DataId, Connection> = BTreeMap::new();
    let mut peer = None;
    let options = ClientOptions {
        credentials: Some(credentials),
        family: AddressFamily::of(server.ip()),
        seed: rand::random(),
        config: Config::default(),
    };
    let mut client = Client::new(options, started);
    let mut relayed = None;
    while started.elapsed() < DEADLINE {
        let now = Instant::now();
        // 1. Do what the client wants done.
        while let Some(output) = client.poll_output() {
            match output {
                ClientOutput::Send { message } => control.socket.write_all(&message)?,
                ClientOutput::Allocated(allocated) => {
                    println!("allocated {}", allocated.relayed);
                    relayed = Some(allocated.relayed);
                    // The peer is on this machine, so the relay sees it come from where it sees us come from.
                    client.permit(now, allocated.mapped.ip())?;
                }
                ClientOutput::Permitted { peer: ip } => {
                    println!("let in {ip}");
                    let relayed = relayed.ok_or("a permission without an allocation")?;
                    peer = Some(thread::spawn(move || connect_as_peer(relayed)));
                }
                ClientOutput::OpenData { data: id } => {
                    data.insert(id, Connection::of(TcpStream::connect_timeout(&server, DEADLINE)?)?);
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
            // One message alone: after `Bound` come the peer's bytes.
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
