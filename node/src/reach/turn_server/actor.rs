//! The task that owns the server's state: everything that happens comes in here, one after the other, and what to do goes out from here.
//!
//! It never waits for a client: one that does not take in time what it is sent loses its connection.
//!
//! What it is not: reading, writing or moving bytes; each client has a task for that.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use keyferry_turn::{
    AddressFamily,
    peer_policy::PeerPolicy,
    server::{AllocationId, Arrival, ClientId, ConnectFailed, PeerId, Server, ServerCounters, ServerOutput},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::{
    client,
    link::{ClientCommand, ClientStream, Joined, Link, RelayInput, RelayTraffic},
    ports::{Ports, Surroundings},
    rates::Shares,
};
use crate::base::clock;

/// How many answers, and messages about peers, may wait until a client takes them.
const MAX_COMMANDS: usize = 64;
/// How often to read the addresses of this machine again.
const READ_ADDRS_EVERY: Duration = Duration::from_secs(30);
/// How long to pause after accept has failed for want of memory or file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The task's state.
pub(super) struct RelayActor {
    server: Server,
    policy: PeerPolicy,
    ports: Ports,
    shares: Shares,
    clients: HashMap<ClientId, mpsc::Sender<ClientCommand>>,
    listeners: HashMap<AllocationId, AbortHandle>,
    /// Connections with peers that are not joined yet.
    peers: HashMap<PeerId, TcpStream>,
    connects: HashMap<PeerId, AbortHandle>,
    inputs: mpsc::Sender<RelayInput>,
    counted: watch::Sender<ServerCounters>,
    traffic: Arc<RelayTraffic>,
    tasks: TaskTracker,
}

impl RelayActor {
    #[expect(clippy::too_many_arguments, reason = "all parts of a relay meet here, once")]
    pub(super) fn new(
        server: Server,
        policy: PeerPolicy,
        ports: Ports,
        shares: Shares,
        inputs: mpsc::Sender<RelayInput>,
        counted: watch::Sender<ServerCounters>,
        traffic: Arc<RelayTraffic>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            server,
            policy,
            ports,
            shares,
            clients: HashMap::new(),
            listeners: HashMap::new(),
            peers: HashMap::new(),
            connects: HashMap::new(),
            inputs,
            counted,
            traffic,
            tasks,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<RelayInput>) {
        let mut addrs = interval(READ_ADDRS_EVERY);
        addrs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.server.poll_timeout().map(Instant::from_std);
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = until(due) => self.server.handle_timeout(now()),
                _ = addrs.tick() => self.read_addrs(),
            }
            self.act();
            self.publish();
        }
    }

    fn take(&mut self, input: RelayInput) {
        match input {
            RelayInput::Client { stream, arrival, first } => self.welcome(stream, arrival, first),
            RelayInput::Message { client, message, taken } => {
                self.server.message(now(), clock::now(), client, &message);
                // What follows is on its way before the client's task reads the next message.
                self.act();
                let _ = taken.send(());
            }
            RelayInput::Closed { client } => {
                self.clients.remove(&client);
                self.server.closed(now(), client);
            }
            RelayInput::Relayed { client, holder, bytes } => self.server.relayed(now(), client, &holder, bytes),
            RelayInput::Peer { allocation, stream, remote } => {
                let remote = self.ports.told(remote);
                if let Some(peer) = self.server.peer_accepted(now(), allocation, remote) {
                    self.peers.insert(peer, stream);
                }
            }
            RelayInput::Connected { peer, result } => {
                self.connects.remove(&peer);
                let result = result.map_err(|error| tracing::debug!(%error, "a peer cannot be connected to"));
                let outcome = result.map(|stream| drop(self.peers.insert(peer, stream))).map_err(|()| ConnectFailed);
                self.server.peer_connected(now(), peer, outcome);
            }
            RelayInput::Unchecked { client } => {
                self.clients.remove(&client);
                self.server.not_checked(now(), client);
            }
            RelayInput::SeenAt(ips) => {
                self.ports.seen_at(ips);
                self.read_addrs();
            }
        }
    }

    fn welcome(&mut self, stream: ClientStream, arrival: Arrival, first: Option<Vec<u8>>) {
        let client = self.server.connected(now(), arrival);
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        self.clients.insert(client, commands);
        if let Some(first) = first {
            self.server.message(now(), clock::now(), client, &first);
            self.act();
        }
        let link = Link { client, inputs: self.inputs.clone(), traffic: Arc::clone(&self.traffic) };
        self.tasks.spawn(client::run(stream, link, received));
    }

    /// Does what the server wants done, after publishing the counts that led to it.
    fn act(&mut self) {
        self.publish();
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { client, message } => self.command(client, ClientCommand::Send(message)),
                ServerOutput::Close { client } => {
                    self.command(client, ClientCommand::Close);
                    self.clients.remove(&client);
                }
                ServerOutput::Listen { allocation, family, reached } => self.listen(allocation, family, reached),
                ServerOutput::StopListening { allocation } => {
                    self.ports.forget(allocation);
                    self.listeners.remove(&allocation).inspect(AbortHandle::abort);
                }
                ServerOutput::Connect { peer, allocation, to } => self.connect(peer, allocation, to),
                ServerOutput::ClosePeer { peer } => {
                    self.peers.remove(&peer);
                    self.connects.remove(&peer).inspect(AbortHandle::abort);
                }
                ServerOutput::Join { client, peer, holder, checks_first } => match self.peers.remove(&peer) {
                    Some(peer) => {
                        let share = self.shares.of(&holder);
                        let joined = Joined { peer, share, holder, checks_first };
                        self.command(client, ClientCommand::Join(joined));
                    }
                    None => self.command(client, ClientCommand::Close),
                },
            }
        }
    }

    /// Tells a client's task; one that is too far behind is given up, and reports its end itself.
    fn command(&mut self, client: ClientId, command: ClientCommand) {
        let Some(commands) = self.clients.get(&client) else { return };
        if commands.try_send(command).is_err() {
            tracing::debug!("a client does not take what it is sent");
            // Without its sender, the task ends.
            self.clients.remove(&client);
        }
    }

    fn listen(&mut self, allocation: AllocationId, family: AddressFamily, reached: SocketAddr) {
        let listening = self.ports.listen(allocation, family, reached);
        let relayed = listening.map(|(listener, relayed)| {
            let task = accept(listener, allocation, self.inputs.clone());
            self.listeners.insert(allocation, self.tasks.spawn(task).abort_handle());
            relayed
        });
        self.server.listening(now(), allocation, relayed);
    }

    fn connect(&mut self, peer: PeerId, allocation: AllocationId, to: SocketAddr) {
        let connecting = self.ports.connect(allocation, to);
        let inputs = self.inputs.clone();
        let task = async move {
            let result = connecting.await;
            let _ = inputs.send(RelayInput::Connected { peer, result }).await;
        };
        self.connects.insert(peer, self.tasks.spawn(task).abort_handle());
    }

    fn read_addrs(&mut self) {
        match self.ports.surroundings() {
            Ok(Surroundings { own_ips, on_link }) => {
                (self.policy.own_ips, self.policy.on_link) = (own_ips, on_link);
                self.server.set_policy(self.policy.clone());
            }
            Err(error) => tracing::warn!(%error, "the addresses of this machine cannot be read"),
        }
    }

    fn publish(&self) {
        let counters = self.server.counters();
        self.counted.send_if_modified(|known| std::mem::replace(known, counters) != counters);
    }
}

impl Drop for RelayActor {
    fn drop(&mut self) {
        self.listeners.values().chain(self.connects.values()).for_each(AbortHandle::abort);
    }
}

/// Accepts peers at a relayed address. They wait in the kernel while the actor is busy.
async fn accept(listener: TcpListener, allocation: AllocationId, inputs: mpsc::Sender<RelayInput>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // If the option cannot be set, the connection is slower, and that is all.
                let _ = stream.set_nodelay(true);
                if inputs.send(RelayInput::Peer { allocation, stream, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed at a relayed address");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
