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
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::{ice, identity::NodeSecret};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use super::{
    announce::Announcer,
    answering::Callee,
    api::Failure,
    calling::Caller,
    dialling::{Dialler, RelayDialler},
    finder::Finder,
    hello,
    host::SessionHost,
    node::NodeConfig,
    relaying,
    sessions::Sessions,
    streams::StreamSettings,
    turns::Turns,
};
use crate::{
    gather::{self, GatherConfig, Gathered, Gatherer, NetworkChange},
    home::{ContactsFile, Home},
    ice::{IceHost, RelayAllocator},
    path::RelayMode,
    port::{DEFAULT_PORT, Incoming, Port, PortError},
    relay::Relay,
    rendezvous::{Rendezvous, RendezvousConfig},
    session::SessionTls,
    signalling::{self, Callers},
    store::Store,
    stun,
    transfer::serve::Server,
    turn::{Proxy, Relays, TurnServer},
};

/// How long it may take to give back what the router maps when the node stops.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// The part of a node that has to do with the network.
pub(super) struct Online {
    pub(super) port: Arc<Port>,
    pub(super) tls: Arc<SessionTls>,
    pub(super) rendezvous: Rendezvous,
    pub(super) finder: Finder,
    pub(super) sessions: Sessions,
    pub(super) ice: Arc<IceHost>,
    pub(super) gathered: watch::Receiver<Gathered>,
    pub(super) stun: stun::Front,
    pub(super) relay_mode: RelayMode,
    relays: Relays,
    pub(super) relay: Option<Arc<Relay>>,
    gatherer: Mutex<Option<Gatherer>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Online {
    pub(super) async fn start(
        config: &NodeConfig,
        home: &Home,
        secret: &NodeSecret,
        store: &Store,
        server: &Server,
        roots_changed: &Arc<Notify>,
    ) -> Result<Self, Failure> {
        let relay_mode = config.relay_mode;
        let hidden = !relay_mode.allows_direct();
        let relays = configured_relays(config)?;
        let (port, incoming) = bind(&config.listen).await?;
        let port = Arc::new(port);
        let tls = SessionTls::new(secret).map_err(|error| Failure::local(error.to_string()))?;
        let relay = config.relay.clone().map(|config| Relay::start(config, port.local_addrs(), home.root().to_owned()));
        let relay = relay.transpose().map_err(|error| Failure::local(error.to_string()))?.map(Arc::new);
        let rendezvous_config = RendezvousConfig {
            bootstrap: config.bootstrap.clone(),
            mdns: config.mdns && !hidden,
            local_bootstrap: config.mdns,
            public: config.public && !hidden,
            hidden,
            records: store.expendable_tree("dht records"),
            turn: relay.as_ref().and_then(|relay| relaying::service(relay, secret)),
            ..RendezvousConfig::new(Zeroizing::new(rand::random()))
        };
        let (rendezvous, _) = Rendezvous::spawn(rendezvous_config, Arc::clone(&port), incoming.libp2p)
            .map_err(|error| Failure::local(error.to_string()))?;
        let port_mapping = config.port_mapping && !hidden;
        let gather_config = GatherConfig { stun: config.stun.clone(), port_mapping, hidden };
        let gatherer = gather::spawn(gather_config, Arc::clone(&port), rendezvous.status());
        let (gathered, network) = (gatherer.gathered(), gatherer.network());
        let ice = IceHost::new(gathered.clone(), ice::Config::default());
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let host = SessionHost::new(server.clone(), tasks.clone(), cancel.clone());
        let sessions = host.sessions.clone();
        let turns = Turns::new(secret.public());
        let allocator: Arc<dyn RelayAllocator> = Arc::new(relays.clone());
        let streams = StreamSettings { mode: relay_mode, relays: allocator };
        let caller = Caller {
            rendezvous: rendezvous.clone(),
            secret: secret.clone(),
            ice: Arc::clone(&ice),
            gathered: gathered.clone(),
            tls: Arc::clone(&tls),
            turns: turns.clone(),
            streams: streams.clone(),
            host: host.clone(),
        };
        let on_session = {
            let host = host.clone();
            Arc::new(move |session, inbound| host.keep(session, inbound))
        };
        let dialler = match relay_mode {
            RelayMode::Both | RelayMode::NoRelay => Dialler::Direct(Arc::clone(&port)),
            RelayMode::RelayOnly => Dialler::ByRelay(Arc::new(RelayDialler::new(relays.clone()))),
        };
        let finder = Finder {
            port: Arc::clone(&port),
            dialler,
            relay_mode,
            tls: Arc::clone(&tls),
            rendezvous: rendezvous.clone(),
            caller,
            sessions: sessions.clone(),
            on_session,
        };
        let until_stopped = |task: BoxFuture<'static, ()>| {
            let cancel = cancel.clone();
            tasks.spawn(async move { cancel.run_until_cancelled(task).await });
        };
        let incoming_sessions = match &relay {
            Some(relay) => {
                let (sender, sessions) = hello::queue();
                until_stopped(hello::sort(incoming.sessions, relay.entrance(), sender).boxed());
                sessions
            }
            None => incoming.sessions,
        };
        // A node that does nothing but to relay has nothing to serve, and lets no session in. Whoever dials the port of a node that
        // hides must not learn by TLS which node is there.
        if relay_mode.allows_direct() && (config.announce || relay.is_none()) {
            tasks.spawn(host.clone().accept(incoming_sessions, Arc::clone(&port), Arc::clone(&tls)));
        }
        let answers = config.announce || relay.is_some();
        let stun =
            stun::Front::spawn(incoming.stun, Arc::clone(&ice), answers, relay.as_ref().map(|relay| relay.entrance()));
        until_stopped(end_dead_sessions(network, sessions.clone()).boxed());
        if let Some(finding) = relaying::find(&relays, relay_mode, secret, home, &rendezvous) {
            until_stopped(finding);
        }
        if config.announce {
            let callers = Callers::new(config.calls, ContactsFile::of(home.root()));
            let (port, ice, tls) = (Arc::clone(&port), Arc::clone(&ice), Arc::clone(&tls));
            let callee = Callee { port, ice, tls, turns, host, streams };
            tasks.spawn(callee.run(signalling::listen(&rendezvous, secret.clone(), callers)));
            let announcer = Announcer {
                gathered: gathered.clone(),
                rendezvous: rendezvous.clone(),
                secret: secret.clone(),
                store: store.clone(),
                roots_changed: Arc::clone(roots_changed),
                relay_mode,
            };
            until_stopped(announcer.run().boxed());
        }
        let gatherer = Mutex::new(Some(gatherer));
        Ok(Self {
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
            tasks,
            cancel,
        })
    }

    /// The relays that this node may use; none if it uses no relays.
    pub(super) fn turn_relays(&self) -> Option<&Relays> {
        self.relay_mode.allows_relays().then_some(&self.relays)
    }

    /// Leaves the network in order.
    pub(super) async fn shutdown(&self) {
        self.cancel.cancel();
        if let Some(relay) = &self.relay {
            relay.shutdown().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(gatherer) = self.gatherer.lock().await.take()
            && timeout(RELEASE_PATIENCE, gatherer.shutdown()).await.is_err()
        {
            tracing::debug!("the router was not told in time; what it maps runs out by itself");
        }
        self.rendezvous.shutdown().await;
    }
}

/// The relays that the user has named.
fn configured_relays(config: &NodeConfig) -> Result<Relays, Failure> {
    let proxy = config.turn_proxy.as_deref().map(Proxy::parse).transpose();
    let proxy = proxy.map_err(|error| Failure::usage(format!("the proxy for relays: {error}")))?;
    let parse = |uri: &String| match TurnServer::parse(uri) {
        Ok(server) => Ok(server.with_proxy(proxy.clone())),
        Err(error) => Err(Failure::usage(format!("a relay cannot be used: {error}"))),
    };
    Ok(Relays::new(config.turn.iter().map(parse).collect::<Result<_, _>>()?))
}

async fn bind(listen: &[SocketAddr]) -> Result<(Port, Incoming), PortError> {
    if !listen.is_empty() {
        return Port::bind(listen).await;
    }
    let everywhere = |port| {
        [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)]
    };
    match Port::bind(&everywhere(DEFAULT_PORT)).await {
        Ok(bound) => Ok(bound),
        // Another node of this machine has the usual port.
        Err(_) => Port::bind(&everywhere(0)).await,
    }
}

/// Ends sessions whose local address goes away: nothing comes or goes on them any more, and nobody would say so.
async fn end_dead_sessions(mut network: watch::Receiver<NetworkChange>, sessions: Sessions) {
    while network.changed().await.is_ok() {
        let removed = network.borrow_and_update().removed.clone();
        sessions.break_off_from(&removed);
    }
}
