//! A TURN server over TCP in the node (RFC 8656, RFC 6062): connections that two nodes cannot make directly go through here.
//!
//! ```text
//! stun::Front ── first plain TURN message ──┐
//! TLS, ALPN stun.turn ── handshake ─────────┴▶ client task ── messages ──▶ actor (proto::turn::server) ──▶ listeners,
//!                                                  ▲                          │                            connects
//!                                                  └── Send, Close, Join ─────┘
//! client task, joined ══ bytes (splice where both are plain TCP) ══ peer
//! ```
//! What it is not: the rules, which are in [`keyferry_turn::server`]; or a client of other relays.

mod actor;
mod certificate;
mod client;
mod config;
mod credentials;
mod link;
mod moving;
mod ports;
mod rates;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::relaying::{RelayCredentials, RelayRefusal};
use keyferry_turn::{
    peer_policy::PeerPolicy,
    rest_credentials::Secret,
    server::{Arrival, Config, CountedOutcome, Server, ServerCounters, Users},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use self::{
    actor::RelayActor,
    certificate::Certificate,
    credentials::Issuer,
    link::{ClientStream, RelayInput, RelayTraffic},
    ports::{Ports, Surroundings},
    rates::Shares,
};
pub use self::{
    certificate::CertificateError,
    config::{PortRange, Rates, RelayConfig, RelayUser},
};
use crate::{
    base::data_dir::{AdmissionPolicy, ContactsFile},
    net::port::Undecided,
    reach::turn_client::Pin,
};

/// How many inputs may wait for the actor. Each client has at most one message here at a time.
const MAX_INPUTS: usize = 1024;
/// How long the TLS handshake of a client may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many handshakes may be under way. One more pushes out the oldest of the host that has most.
const MAX_HANDSHAKES: usize = 128;
/// How much rustls may hold back of what goes to a client.
const TLS_SEND_BUFFER: usize = 16 * 1024;

/// Why a relay cannot be started. All of it is about this machine and its operator.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The certificate for `turns:`.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An external address that is of no use to clients.
    #[error("{0} cannot be told as an address outside: it is no single host's, or the second of its family")]
    External(IpAddr),
    /// The addresses of this machine.
    #[error("the addresses of this machine cannot be read: {0}")]
    Interfaces(std::io::Error),
}

/// The relay of a node. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    entrance: Entrance,
    issuer: Issuer,
    pin: Option<Pin>,
    counters: watch::Receiver<ServerCounters>,
    traffic: Arc<RelayTraffic>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// Where connections for the relay come in. Clones are for the same relay.
#[derive(Clone, Debug)]
pub struct Entrance {
    inputs: mpsc::Sender<RelayInput>,
    tls: Arc<rustls::ServerConfig>,
    handshakes: Undecided,
    traffic: Arc<RelayTraffic>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Relay {
    /// Starts the relay of a node that listens on these addresses and has this data folder.
    pub fn start(config: RelayConfig, listeners: &[SocketAddr], home: PathBuf) -> Result<Self, RelayError> {
        Self::start_with(config, Config::default(), listeners, home)
    }

    /// Starts a relay with these timers, which operators do not choose.
    fn start_with(
        config: RelayConfig,
        timers: Config,
        listeners: &[SocketAddr],
        home: PathBuf,
    ) -> Result<Self, RelayError> {
        let external = config.external().map_err(RelayError::External)?;
        let secret = config
            .secret
            .as_ref()
            .map_or_else(|| Secret::new(&rand::random::<[u8; 32]>()), |secret| Secret::new(secret.as_bytes()));
        let named = config.users.iter().map(|user| (user.name.clone(), user.password.to_string())).collect();
        let users = Users { named, secret: Some(secret.clone()) };
        let certificate = Certificate::load(config.certificate.as_ref(), &home)?;
        let ports = Ports::new(config.ports, external);
        let own_ports = listeners.iter().map(SocketAddr::port).collect();
        let Surroundings { own_ips, on_link } = ports.surroundings().map_err(RelayError::Interfaces)?;
        let policy = PeerPolicy { allowed: config.allow_peers.clone(), own_ips, on_link, own_ports };
        let core = Config { realm: config.realm.clone(), limits: config.limits.clone(), ..timers };
        let now = tokio::time::Instant::now().into_std();
        let server = Server::new(core, users, policy.clone(), rand::random(), now);
        let (inputs, received) = mpsc::channel(MAX_INPUTS);
        let (counted, counters) = watch::channel(ServerCounters::default());
        let (tasks, cancel, traffic) =
            (TaskTracker::new(), CancellationToken::new(), Arc::new(RelayTraffic::default()));
        let actor = RelayActor::new(
            server,
            policy,
            ports,
            Shares::new(config.rates),
            inputs.clone(),
            counted,
            Arc::clone(&traffic),
            tasks.clone(),
        );
        let until = cancel.clone();
        tasks.spawn(async move { until.run_until_cancelled(actor.run(received)).await });
        let entrance = Entrance {
            inputs,
            tls: certificate.server_config(),
            handshakes: Undecided::new(MAX_HANDSHAKES),
            traffic: Arc::clone(&traffic),
            tasks: tasks.clone(),
            cancel: cancel.clone(),
        };
        let pin = certificate.pin();
        let issuer = Issuer::new(
            config.policy,
            ContactsFile::of(&home),
            secret,
            config.realm,
            config.credentials_lifetime,
            pin.map(|pin| *pin.as_bytes()),
        );
        Ok(Self { entrance, issuer, pin, counters, traffic, cancel, tasks })
    }

    /// Where connections for the relay come in.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Issues credentials that run out, to a node that the policy allows, or to somebody at a host who does not say who it is. They do not
    /// tell where the relay is.
    pub async fn credentials_for(
        &self,
        node: Option<keyferry_proto::identity::NodeKey>,
        remote: IpAddr,
        now: UnixTime,
    ) -> Result<RelayCredentials, RelayRefusal> {
        self.issuer.credentials_for(node, remote, now).await
    }

    /// Tells at which addresses others see this machine: nobody is connected with these, as with those of the machine itself.
    pub(crate) async fn seen_at(&self, ips: Vec<IpAddr>) {
        let _ = self.entrance.inputs.send(RelayInput::SeenAt(ips)).await;
    }

    /// Who gets credentials.
    pub fn policy(&self) -> AdmissionPolicy {
        self.issuer.policy()
    }

    /// What `turns:` clients pin, unless an authority vouches for the certificate.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// What the relay has done and refused.
    pub fn counters(&self) -> ServerCounters {
        *self.counters.borrow()
    }

    /// What the relay and its driver have done and refused, by name, for `status`.
    pub fn counts_by_name(&self) -> impl Iterator<Item = (String, u64)> {
        let named = self.counters().named().map(|(outcome, name, count)| match outcome {
            CountedOutcome::Done => (format!("relay_{name}"), count),
            CountedOutcome::Refused => (format!("relay_refused_{name}"), count),
            CountedOutcome::Closed => (format!("relay_closed_{name}"), count),
        });
        named.chain(self.traffic.by_name())
    }

    /// What the relay has refused or ended, by reason; only reasons that have occurred.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let driver = [("handshake_failed", &self.traffic.handshakes_failed), ("busy", &self.traffic.busy)];
        let driver = driver.map(|(reason, counter)| (reason, counter.get()));
        let server = self.counters().named().filter(|(outcome, ..)| *outcome != CountedOutcome::Done);
        let all = server.map(|(_, reason, count)| (reason, count)).chain(driver);
        all.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.to_owned(), count)).collect()
    }

    /// Ends all that the relay does, and waits for it.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Entrance {
    /// Takes a plain connection whose first message has been read.
    pub fn plain(&self, stream: TcpStream, remote: SocketAddr, local: SocketAddr, first: Vec<u8>) {
        self.admit(Either::Left(stream), Arrival { remote, local }, Some(first));
    }

    /// Takes a connection that begins with a ClientHello for `turns:`, of which nothing has been read.
    pub fn tls(&self, stream: TcpStream, remote: SocketAddr, local: SocketAddr) {
        let entrance = self.clone();
        let mut place = self.handshakes.enter(remote.ip());
        let handshake = TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream);
        self.tasks.spawn(async move {
            let accepted = tokio::select! {
                accepted = timeout(HANDSHAKE_TIMEOUT, handshake) => accepted,
                _ = &mut place.pushed_out => return,
                () = entrance.cancel.cancelled() => return,
            };
            let Ok(Ok(mut stream)) = accepted else {
                entrance.traffic.handshakes_failed.add_one();
                return;
            };
            stream.get_mut().1.set_buffer_limit(Some(TLS_SEND_BUFFER));
            entrance.admit(Either::Right(Box::new(stream)), Arrival { remote, local }, None);
        });
    }

    fn admit(&self, stream: ClientStream, arrival: Arrival, first: Option<Vec<u8>>) {
        if self.inputs.try_send(RelayInput::Client { stream, arrival, first }).is_err() {
            self.traffic.busy.add_one();
        }
    }
}
