//! The task that owns one allocation: its protocol, its control connection, and data connections until they are bound.
//!
//! What it is not: a judgement on what the server says; that is [`Client`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use keyferry_turn::{
    AddressFamily,
    client::{Allocated, Client, ClientOptions, ClientOutput, Config, ConnectId, DataId, DataOrigin, Ending},
    framing::{MAX_MESSAGE_LEN, StunFrameError, StunReader},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::{Notify, mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    PeerConnectError, TurnError, TurnServer,
    dial::{self, Route},
};
use crate::net::path::PathStream;

/// How many connects may wait for the task.
const MAX_WAITING_CONNECTS: usize = 32;
/// How many peers may wait until the task asks for their permission.
const MAX_WANTED: usize = 64;
/// How many connections of peers may wait until somebody accepts them. The task closes more.
const MAX_WAITING_ACCEPTED: usize = 16;
/// How long a message may take to leave. It is shorter than any send buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the task looks for connects that nobody waits for any more.
const ABANDONED_CHECK: Duration = Duration::from_millis(500);
/// How long an idle task sleeps when its client waits for nothing, which a client that has not ended never does.
const LONG: Duration = Duration::from_secs(3600);

/// An allocation that stands, from the outside.
pub(super) struct Started {
    pub(super) allocated: Allocated,
    pub(super) connects: mpsc::Sender<PeerConnect>,
    pub(super) accepted: mpsc::Receiver<(PathStream, SocketAddr)>,
    pub(super) ended: watch::Receiver<Option<Ending>>,
}

/// Somebody wants a connection to a peer. Dropping the receiving half of `reply` abandons it.
#[derive(Debug)]
pub(super) struct PeerConnect {
    pub(super) peer: SocketAddr,
    pub(super) reply: oneshot::Sender<Result<PathStream, PeerConnectError>>,
}

/// Peers to let in.
#[derive(Debug, Default)]
pub(super) struct WantedPeers {
    peers: Mutex<BTreeSet<IpAddr>>,
    pub(super) changed: Notify,
}

/// Connects, and waits until the allocation stands. Dropping the future gives everything back.
pub(super) async fn start(
    server: &TurnServer,
    family: AddressFamily,
    wanted: Arc<WantedPeers>,
) -> Result<Started, TurnError> {
    let (stream, route) = dial::control(server).await?;
    let (connects, connects_in) = mpsc::channel(MAX_WAITING_CONNECTS);
    let (accepted_out, accepted) = mpsc::channel(MAX_WAITING_ACCEPTED);
    let (ended_out, ended) = watch::channel(None);
    let (allocated_out, allocated) = oneshot::channel();
    let options = ClientOptions {
        credentials: server.credentials.clone(),
        family,
        seed: rand::random(),
        config: Config::default(),
    };
    let (control_in, control_out) = split(stream);
    let driver = AllocationDriver {
        client: Client::new(options, Instant::now()),
        server: server.clone(),
        route,
        control: control_out,
        allocated: Some(allocated_out),
        accepted: accepted_out,
        ended: ended_out,
        replies: BTreeMap::new(),
        standing: BTreeMap::new(),
        steps: JoinSet::new(),
        aborts: BTreeMap::new(),
    };
    tokio::spawn(driver.run(control_in, connects_in, wanted));
    match allocated.await {
        Ok(allocated) => Ok(Started { allocated, connects, accepted, ended }),
        Err(_) => Err((*ended.borrow()).unwrap_or(Ending::Closed).into()),
    }
}

struct AllocationDriver {
    client: Client,
    server: TurnServer,
    route: Route,
    control: WriteHalf<PathStream>,
    /// Whoever waits for the allocation; `None` once it stands.
    allocated: Option<oneshot::Sender<Allocated>>,
    accepted: mpsc::Sender<(PathStream, SocketAddr)>,
    ended: watch::Sender<Option<Ending>>,
    replies: BTreeMap<ConnectId, oneshot::Sender<Result<PathStream, PeerConnectError>>>,
    /// Data connections between two steps.
    standing: BTreeMap<DataId, PathStream>,
    /// Data connections that are being opened, or wait for an answer.
    steps: JoinSet<(DataId, io::Result<DriverStep>)>,
    aborts: BTreeMap<DataId, AbortHandle>,
}

/// What became of a data connection.
enum DriverStep {
    Opened(PathStream),
    Answered(PathStream, Vec<u8>),
}

impl AllocationDriver {
    async fn run(
        mut self,
        mut control: ReadHalf<PathStream>,
        mut connects: mpsc::Receiver<PeerConnect>,
        wanted: Arc<WantedPeers>,
    ) {
        let mut reader = StunReader::new();
        let mut keeps = true;
        while self.obey().await {
            self.abandon();
            let next = self.next_timeout();
            tokio::select! {
                message = read_message(&mut control, &mut reader) => match message {
                    Ok(message) => self.client.received(Instant::now(), &message),
                    Err(error) => {
                        tracing::debug!(server = %self.server, %error, "the control connection ended");
                        match error.kind() {
                            io::ErrorKind::InvalidData => self.client.control_garbled(),
                            _ => self.client.control_closed(),
                        }
                    }
                },
                connect = connects.recv(), if keeps => match connect {
                    Some(connect) => self.connect(connect),
                    None => {
                        // The allocation and all leases are gone.
                        keeps = false;
                        self.client.release(Instant::now());
                    }
                },
                () = wanted.changed.notified() => self.permit(&wanted),
                Some(step) = self.steps.join_next() => self.step(step),
                () = tokio::time::sleep_until(next.into()) => self.client.handle_timeout(Instant::now()),
            }
        }
    }

    /// Does what the client wants; false at the end.
    async fn obey(&mut self) -> bool {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send { message } => {
                    if let Err(error) = write_message(&mut self.control, &message).await {
                        tracing::debug!(server = %self.server, %error, "the control connection ended");
                        self.client.control_closed();
                    }
                }
                ClientOutput::OpenData { data } => self.open(data),
                ClientOutput::SendData { data, message } => self.exchange(data, message),
                ClientOutput::CloseData { data } => self.close(data),
                ClientOutput::Bound { data, origin } => self.hand_over(data, origin),
                ClientOutput::Allocated(allocated) => self.allocated(allocated),
                ClientOutput::Permitted { peer } => {
                    tracing::debug!(server = %self.server, %peer, "the relay lets a peer in")
                }
                ClientOutput::PermissionRefused { peer, error } => {
                    tracing::debug!(server = %self.server, %peer, %error, "the relay does not let a peer in");
                }
                ClientOutput::ConnectFailed { connect, error } => self.reply(connect, Err(error.into())),
                ClientOutput::Ended(ending) => {
                    tracing::info!(server = %self.server, %ending, "an allocation on a relay has ended");
                    tracing::debug!(server = %self.server, counters = ?self.client.counters(), "what it has counted");
                    self.ended.send_replace(Some(ending));
                    return false;
                }
            }
        }
        true
    }

    fn allocated(&mut self, allocated: Allocated) {
        let Allocated { relayed, mapped, lifetime } = allocated;
        tracing::info!(server = %self.server, ?lifetime, "an allocation on a relay stands");
        tracing::debug!(server = %self.server, %relayed, %mapped, "addresses of an allocation");
        if let Some(waiting) = self.allocated.take() {
            // If nobody waits any more, the last sender of connects is gone as well.
            let _ = waiting.send(allocated);
        }
    }

    fn connect(&mut self, PeerConnect { peer, reply }: PeerConnect) {
        match self.client.connect(Instant::now(), peer) {
            Ok(connect) => drop(self.replies.insert(connect, reply)),
            Err(refusal) => drop(reply.send(Err(refusal.into()))),
        }
    }

    fn permit(&mut self, wanted: &WantedPeers) {
        for peer in wanted.take() {
            if let Err(refusal) = self.client.permit(Instant::now(), peer) {
                tracing::debug!(server = %self.server, %peer, %refusal, "no permission is asked for");
            }
        }
    }

    fn open(&mut self, data: DataId) {
        let (server, route) = (self.server.clone(), self.route);
        let opened = async move { dial::data(&server, route).await.map(DriverStep::Opened).map_err(io::Error::other) };
        self.spawn(data, opened);
    }

    /// Sends one message on a data connection, and reads the answer.
    fn exchange(&mut self, data: DataId, message: Vec<u8>) {
        let Some(mut stream) = self.standing.remove(&data) else {
            return self.client.data_closed(data);
        };
        self.spawn(data, async move {
            write_message(&mut stream, &message).await?;
            let answer = read_message(&mut stream, &mut StunReader::new()).await?;
            Ok(DriverStep::Answered(stream, answer))
        });
    }

    fn spawn(&mut self, data: DataId, step: impl Future<Output = io::Result<DriverStep>> + Send + 'static) {
        let abort = self.steps.spawn(async move { (data, step.await) });
        self.aborts.insert(data, abort);
    }

    fn step(&mut self, step: Result<(DataId, io::Result<DriverStep>), tokio::task::JoinError>) {
        // One that was aborted has been forgotten before.
        let Ok((data, result)) = step else { return };
        if self.aborts.remove(&data).is_none() {
            return;
        }
        match result {
            Ok(DriverStep::Opened(stream)) => {
                self.standing.insert(data, stream);
                self.client.data_connected(Instant::now(), data);
            }
            Ok(DriverStep::Answered(stream, answer)) => {
                self.standing.insert(data, stream);
                self.client.data_received(Instant::now(), data, &answer);
            }
            Err(error) => {
                tracing::debug!(server = %self.server, %error, "a data connection failed");
                self.client.data_closed(data);
            }
        }
    }

    fn close(&mut self, data: DataId) {
        self.standing.remove(&data);
        if let Some(abort) = self.aborts.remove(&data) {
            abort.abort();
        }
    }

    fn hand_over(&mut self, data: DataId, origin: DataOrigin) {
        let Some(stream) = self.standing.remove(&data) else { return };
        match origin {
            DataOrigin::Connect { connect, .. } => self.reply(connect, Ok(stream)),
            DataOrigin::Attempt { peer } => {
                if self.accepted.try_send((stream, peer)).is_err() {
                    tracing::debug!(server = %self.server, %peer, "nobody takes a peer's connection: closed");
                }
            }
        }
    }

    fn reply(&mut self, connect: ConnectId, result: Result<PathStream, PeerConnectError>) {
        if let Some(reply) = self.replies.remove(&connect) {
            // If nobody waits any more, dropping the connection closes it.
            let _ = reply.send(result);
        }
    }

    /// Gives up connects that nobody waits for.
    fn abandon(&mut self) {
        let gone: Vec<ConnectId> =
            self.replies.iter().filter(|(_, reply)| reply.is_closed()).map(|(connect, _)| *connect).collect();
        for connect in gone {
            self.replies.remove(&connect);
            self.client.abandon(connect);
        }
    }

    fn next_timeout(&self) -> Instant {
        let now = Instant::now();
        let next = self.client.poll_timeout().unwrap_or(now + LONG);
        if self.replies.is_empty() { next } else { next.min(now + ABANDONED_CHECK) }
    }
}

impl WantedPeers {
    pub(super) fn take(&self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, peer: IpAddr) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < MAX_WANTED {
            peers.insert(peer);
            self.changed.notify_one();
        }
    }
}

async fn write_message<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    timeout(WRITE_TIMEOUT, written).await?
}

/// Reads one message, and not a byte more. If the future is dropped, what it has read stays in the reader.
async fn read_message<S: AsyncRead + Unpin>(stream: &mut S, reader: &mut StunReader) -> io::Result<Vec<u8>> {
    let mut buffer = [0; MAX_MESSAGE_LEN];
    loop {
        let wanted = reader.wanted().min(buffer.len());
        let read = stream.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(message) = reader.push(&buffer[..read]).map_err(not_stun)? {
            return Ok(message);
        }
    }
}

fn not_stun(error: StunFrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
