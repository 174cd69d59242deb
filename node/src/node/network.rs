//! The part of a node that has to do with the network: what there is of it, and how it is put together.
//!
//! ```text
//! port ─┬─ libp2p ──▶ rendezvous ─▶ gather ─▶ ice ──▶ calling, answering ─┐
//!       ├─ stun ────▶ stun ───────────────────▶ │                         ├─▶ host: sessions, served
//!       └─ TLS ─▶ hello ──────────────────────────────────────────────────┘
//!                   └─▶ relay ◀─ stun
//! ```
//! What it is not: any of these; it only joins them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::CandidateKind;
use keyferry_proto::identity::NodeSecret;
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use super::{Error, NodeConfig};
use crate::{
    base::{
        clock::{self, ClockJump, JumpWatch},
        data_dir::{Admission, ContactDays, ContactsFile, Home},
        file_limit,
        secret_text::SecretText,
    },
    connect::{
        acceptor::SessionHost,
        call_arbiter::Turns,
        callee::Callee,
        caller::Caller,
        connector::Finder,
        demux::{self, alpn},
        dialling::{ByTurnRelay, Dialler, RelayDialler},
        ice::IceHost,
        protocols::Protocols,
        sessions::Sessions,
        signalling,
        streams::StreamSettings,
    },
    content::{store::Store, transfer::serve::ContentServer},
    net::{
        path::RelayMode,
        port::{Accepted, DEFAULT_PORT, IncomingConnections, Port, PortError},
        session::SessionTls,
        trouble::{Trouble, Troubles},
    },
    node::announcer::{Announcer, Sequence},
    reach::{
        gather::{self, GatherConfig, Gathered, Gatherer, NetworkChange},
        rendezvous::{HiddenCircuits, Rendezvous, RendezvousConfig, RendezvousStatus, TurnService},
        turn_client::{Proxy, Relays, TurnServer},
        turn_server::Relay,
        turn_service,
    },
};

/// How often to look whether this machine has slept, or somebody has set its clock.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_secs(2);

/// How long the router may take to release the mapped port when the node stops.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// The part of a node that has to do with the network.
pub(crate) struct Online {
    pub(crate) port: Arc<Port>,
    pub(crate) tls: Arc<SessionTls>,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) finder: Finder,
    pub(crate) sessions: Sessions,
    pub(crate) ice: Arc<IceHost>,
    pub(crate) gathered: watch::Receiver<Gathered>,
    pub(crate) stun: demux::stun::Front,
    pub(crate) relay_mode: RelayMode,
    relays: Relays,
    pub(crate) relay: Option<Arc<Relay>>,
    gatherer: Mutex<Option<Gatherer>>,
    host: SessionHost,
}

impl Online {
    pub(crate) async fn start(
        config: &NodeConfig,
        home: &Home,
        secret: &NodeSecret,
        store: &Store,
        server: &ContentServer,
        roots_changed: &Arc<Notify>,
    ) -> Result<Self, Error> {
        file_limit::raise();
        let relays = configured_relays(config)?;
        let (port, mut incoming) = bind(config).await?;
        let port = Arc::new(port);
        let tls = SessionTls::new(secret).map_err(|error| Error::Tls(error.into()))?;
        let relay = start_relay(config, &port, home)?;
        let turn = relay.as_ref().and_then(|relay| turn_service::service(relay, secret));
        let dialler = Arc::new(RelayDialler::new(Arc::new(relays.clone())));
        let hidden = hidden_circuits(config.relay_mode, &dialler, &port);
        if hidden.is_some() {
            // Its port may have to be open for its relay, and answers no stranger who speaks libp2p.
            incoming.libp2p = mpsc::channel(1).1;
        }
        let rendezvous_config = rendezvous_config(config, store, turn, hidden);
        let (rendezvous, _) = Rendezvous::spawn(rendezvous_config, Arc::clone(&port), incoming.libp2p)?;
        let troubles = tls.troubles();
        let gatherer = gather::spawn(gather_config(config), Arc::clone(&port), rendezvous.status(), troubles)?;
        let (gathered, network) = (gatherer.gathered(), gatherer.network());
        let ice = IceHost::new(gathered.clone(), keyferry_ice::Config::default());
        let answers_stun = relay.is_some() || (config.announce && config.relay_mode.allows_direct());
        let entrance = relay.as_ref().map(|relay| relay.entrance());
        let stun = demux::stun::Front::spawn(incoming.stun, Arc::clone(&ice), answers_stun, entrance, &port);
        let contact_days = ContactDays::open(home.root());
        tls.set_contact_days(contact_days.clone());
        let host = SessionHost::new(server.clone(), TaskTracker::new(), CancellationToken::new());
        let host = host.remembering(contact_days);
        let caller = Caller {
            rendezvous: rendezvous.clone(),
            secret: secret.clone(),
            ice: Arc::clone(&ice),
            gathered: gathered.clone(),
            tls: Arc::clone(&tls),
            turns: Turns::new(secret.public()),
            streams: StreamSettings { mode: config.relay_mode, relays: Arc::new(relays.clone()) },
            host: host.clone(),
        };
        let finder = finder(config.relay_mode, Arc::clone(&port), dialler, caller);
        let (sessions, relay_mode) = (host.sessions.clone(), config.relay_mode);
        let gatherer = Mutex::new(Some(gatherer));
        let online = Self {
            port,
            tls,
            rendezvous,
            finder,
            sessions,
            ice,
            gathered,
            stun,
            relay_mode,
            relays,
            relay,
            gatherer,
            host,
        };
        online.offer_contents(store);
        online.let_sessions_in(config, incoming.sessions);
        let clock_set = Arc::new(Notify::new());
        online.until_stopped(
            watch_clock(online.tls.troubles().clone(), online.rendezvous.clone(), Arc::clone(&clock_set)).boxed(),
        );
        online.until_stopped(follow_skew(online.rendezvous.status(), Arc::clone(&online.tls)).boxed());
        if let Some(relay) = &online.relay {
            online.until_stopped(tell_where_seen(online.gathered.clone(), Arc::clone(relay)).boxed());
        }
        online.until_stopped(follow_network(network, online.sessions.clone(), online.rendezvous.clone()).boxed());
        if let Some(finding) = turn_service::find(&online.relays, relay_mode, secret, home, &online.rendezvous) {
            online.until_stopped(finding);
        }
        if config.announce {
            online.take_calls(Admission::new(config.calls, ContactsFile::of(home.root())));
            online.announce(store, roots_changed, clock_set, home);
        }
        Ok(online)
    }

    /// Accepts sessions at the port.
    fn let_sessions_in(&self, config: &NodeConfig, incoming: mpsc::Receiver<Accepted>) {
        let incoming = match &self.relay {
            Some(relay) => {
                let (sender, sessions) = alpn::queue();
                self.until_stopped(alpn::sort(incoming, relay.entrance(), sender).boxed());
                sessions
            }
            None => incoming,
        };
        // One that announces nothing has sessions with those alone whom it dials or calls; one that hides its addresses lets nobody see
        // that it is here.
        if self.relay_mode.allows_direct() && config.announce {
            let accepting = self.host.clone().accept(incoming, Arc::clone(&self.port), Arc::clone(&self.tls));
            self.host.tasks.spawn(accepting);
        }
    }

    /// Answers the calls of those whom `callers` admits.
    fn take_calls(&self, callers: Admission) {
        let Caller { ice, tls, turns, host, streams, secret, rendezvous, .. } = self.finder.caller.clone();
        let callee = Callee { port: Arc::clone(&self.port), ice, tls, turns, host, streams };
        self.host.tasks.spawn(callee.run(signalling::listen(&rendezvous, secret, callers)));
    }

    /// Keeps what the DHT says about this node up to date.
    fn announce(&self, store: &Store, roots_changed: &Arc<Notify>, clock_set: Arc<Notify>, home: &Home) {
        let sequence = Sequence::open(home.root());
        // Begun before anything is published.
        self.until_stopped(self.finder.clone().watch_for_twins(sequence.numbers()));
        let announcer = Announcer {
            gathered: self.gathered.clone(),
            rendezvous: self.rendezvous.clone(),
            secret: self.finder.caller.secret.clone(),
            store: store.clone(),
            tls: Arc::clone(&self.tls),
            roots_changed: Arc::clone(roots_changed),
            relay_mode: self.relay_mode,
            clock_set,
            sequence,
        };
        self.until_stopped(announcer.run().boxed());
    }

    /// Lets what is announced be sought by its hash alone, and nothing else.
    pub(crate) fn offer_contents(&self, store: &Store) {
        self.tls.set_contents(store.announced(), clock::now().day());
    }

    fn until_stopped(&self, task: BoxFuture<'static, ()>) {
        let cancel = self.host.cancel.clone();
        self.host.tasks.spawn(async move { cancel.run_until_cancelled(task).await });
    }

    /// Who listens for which protocol of its own.
    pub(crate) fn protocols(&self) -> &Protocols {
        &self.host.protocols
    }

    /// The relays that this node may use; none if it uses no relays.
    pub(crate) fn turn_relays(&self) -> Option<&Relays> {
        self.relay_mode.allows_relays().then_some(&self.relays)
    }

    /// Leaves the network in order.
    pub(crate) async fn shutdown(&self) {
        self.host.cancel.cancel();
        if let Some(relay) = &self.relay {
            relay.shutdown().await;
        }
        self.host.protocols.close();
        self.host.tasks.close();
        self.host.tasks.wait().await;
        if let Some(gatherer) = self.gatherer.lock().await.take()
            && timeout(RELEASE_PATIENCE, gatherer.shutdown()).await.is_err()
        {
            tracing::debug!("the router was not told in time; what it maps runs out by itself");
        }
        self.rendezvous.shutdown().await;
    }
}

/// This node as a relay for others, if it is to be one.
fn start_relay(config: &NodeConfig, port: &Port, home: &Home) -> Result<Option<Arc<Relay>>, Error> {
    let Some(relay) = config.relay.clone() else { return Ok(None) };
    let relay = Relay::start(relay, port.local_addrs(), home.root().to_owned());
    Ok(Some(Arc::new(relay?)))
}

/// How the node takes part in the DHT. One that hides its addresses can be found neither there nor on the local network.
fn rendezvous_config(
    config: &NodeConfig,
    store: &Store,
    turn: Option<TurnService>,
    hidden: Option<HiddenCircuits>,
) -> RendezvousConfig {
    // What one that only fetches is given to keep, it has for too short a time to be worth a wait for the disk.
    let keeps_records = config.announce || config.relay.is_some();
    RendezvousConfig {
        bootstrap: config.bootstrap.clone(),
        mdns: config.mdns && hidden.is_none(),
        local_bootstrap: config.mdns,
        public: config.public && hidden.is_none(),
        hidden,
        memory_limit: config.memory_limit,
        records: keeps_records.then(|| store.expendable_tree("dht records")).flatten(),
        turn,
        ..RendezvousConfig::new(Zeroizing::new(rand::random()))
    }
}

/// How a node that hides its addresses calls and is called.
fn hidden_circuits(relay_mode: RelayMode, dialler: &Arc<RelayDialler>, port: &Arc<Port>) -> Option<HiddenCircuits> {
    (!relay_mode.allows_direct()).then(|| HiddenCircuits {
        secret: Zeroizing::new(rand::random()),
        dialler: Arc::new(ByTurnRelay::new(Arc::clone(dialler), Arc::clone(port))),
    })
}

fn gather_config(config: &NodeConfig) -> GatherConfig {
    let hidden = !config.relay_mode.allows_direct();
    GatherConfig {
        stun: config.stun.clone(),
        port_mapping: config.port_mapping && !hidden,
        hidden,
        fixed_port: config.public,
    }
}

fn finder(relay_mode: RelayMode, port: Arc<Port>, by_relay: Arc<RelayDialler>, caller: Caller) -> Finder {
    let dialler = match relay_mode {
        RelayMode::Both | RelayMode::NoRelay => Dialler::Direct(Arc::clone(&port)),
        RelayMode::RelayOnly => Dialler::ByRelay(by_relay),
    };
    let host = caller.host.clone();
    Finder {
        port,
        dialler,
        relay_mode,
        tls: Arc::clone(&caller.tls),
        rendezvous: caller.rendezvous.clone(),
        sessions: host.sessions.clone(),
        on_session: Arc::new(move |session, inbound| host.keep(session, inbound)),
        caller,
    }
}

/// The relays that the user has named.
fn configured_relays(config: &NodeConfig) -> Result<Relays, Error> {
    let proxy = config.turn_proxy.as_deref().map(Proxy::parse).transpose();
    let proxy = proxy?;
    let parse = |uri: &SecretText| Ok(TurnServer::parse(uri)?.with_proxy(proxy.clone()));
    Ok(Relays::new(config.turn.iter().map(parse).collect::<Result<_, Error>>()?))
}

/// Opens the port. That of a node that hides its addresses lets nobody in, unless it relays for others.
async fn bind(config: &NodeConfig) -> Result<(Port, IncomingConnections), PortError> {
    let hides = !config.relay_mode.allows_direct();
    if !config.listen.is_empty() {
        return match hides && config.relay.is_none() {
            true => Port::bind_shut(&config.listen).await,
            false => Port::bind(&config.listen).await,
        };
    }
    let everywhere = |port| {
        [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)]
    };
    if hides && config.relay.is_none() {
        return Port::bind_shut(&everywhere(0)).await;
    }
    // The usual port is where others expect a node that is there for them.
    if !config.announce && config.relay.is_none() {
        return Port::bind(&everywhere(0)).await;
    }
    match Port::bind(&everywhere(DEFAULT_PORT)).await {
        Ok(bound) => Ok(bound),
        // Another node of this machine has the usual port.
        Err(_) => Port::bind(&everywhere(0)).await,
    }
}

/// Tells the relay of the addresses outside that lead to this node.
async fn tell_where_seen(mut gathered: watch::Receiver<Gathered>, relay: Arc<Relay>) {
    loop {
        let of_router = |kind| matches!(kind, CandidateKind::ServerReflexive | CandidateKind::PortMapped);
        let candidates = gathered.borrow_and_update().candidates.clone();
        let outside: BTreeSet<IpAddr> = candidates
            .iter()
            .filter(|local| of_router(local.candidate.kind))
            .map(|local| local.candidate.addr.ip())
            .collect();
        relay.seen_at(outside.into_iter().collect()).await;
        if gathered.changed().await.is_err() {
            return;
        }
    }
}

/// Ends sessions whose local address has gone, and lets the rendezvous do likewise: no packet arrives on them any more, and no error would
/// tell. Whatever else stands is doubted.
async fn follow_network(mut network: watch::Receiver<NetworkChange>, sessions: Sessions, rendezvous: Rendezvous) {
    while network.changed().await.is_ok() {
        let NetworkChange { added, removed, .. } = network.borrow_and_update().clone();
        if !(added.is_empty() && removed.is_empty()) {
            rendezvous.interfaces_changed();
        }
        sessions.break_off_from(&removed);
        rendezvous.doubt();
    }
}

/// Tells the sessions how far this machine's clock is from those of others.
async fn follow_skew(mut status: watch::Receiver<RendezvousStatus>, tls: Arc<SessionTls>) {
    loop {
        tls.set_skew(status.borrow_and_update().clock);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Tells when this machine has slept, and NATs on the way may have forgotten what they have not seen for so long; and when its clock was set.
/// (Which of the two it is, nobody can tell.)
async fn watch_clock(troubles: Troubles, rendezvous: Rendezvous, clock_set: Arc<Notify>) {
    let mut watch = JumpWatch::new(clock::now_ms(), Instant::now().into_std());
    loop {
        sleep(LOOK_AT_CLOCK_EVERY).await;
        let Some(jump) = watch.look(clock::now_ms(), Instant::now().into_std()) else { continue };
        tracing::info!(?jump, "this machine has slept, or its clock was set");
        if matches!(jump, ClockJump::Ahead(_)) {
            troubles.tell(Trouble::Awoken);
        }
        rendezvous.clock_set();
        clock_set.notify_one();
    }
}
