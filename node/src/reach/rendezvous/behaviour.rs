//! The libp2p behaviours of a node, and the `Swarm` that they make up, with all their limits.
//!
//! What it is not: what is done with their events; see [`super::actor`].

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncWrite};
use keyferry_proto::offer::{MAX_LIFETIME, RECORD_VERSION};
use libp2p::{
    PeerId, StreamProtocol, Swarm, Transport, autonat, connection_limits,
    connection_limits::ConnectionLimits,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    identify,
    identity::Keypair,
    kad, memory_connection_limits, noise, relay,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
    yamux,
};
use tokio::sync::mpsc;

use super::{
    calls::Calls,
    circuit_relay,
    clocks::{self, ClockExchange},
    config::{RendezvousConfig, RendezvousError},
    handshake::{Handshakes, MAX_HANDSHAKES},
    keep_alive::KeepAlive,
    liveness::Liveness,
    metered::metered,
    multicast::{self, Multicast},
    observed::Departures,
    panic_guard::PanicGuard,
    probe::Prober,
    quiet_yamux::QuietYamux,
    records::Table,
    scope::{AddressScope, LAN_PROTOCOL, WAN_PROTOCOL},
    scope_filter::ScopeFilter,
    transport::PortTransport,
    turn::{self, TurnExchange},
};
use crate::{
    base::traffic::Traffic,
    net::port::{Accepted, Port},
};

/// The version of the rendezvous: raised with that of the records in the DHT, which peers of another version do not take.
pub const VERSION: u32 = RECORD_VERSION as u32;
/// What identify tells others that we speak. A peer that says anything else is none of ours.
pub(super) const PROTOCOL_VERSION: &str = "/keyferry/2";
/// What the [`PROTOCOL_VERSION`] of any version begins with.
pub(super) const PROTOCOL_FAMILY: &str = "/keyferry/";

/// How long a connection may take to be encrypted and multiplexed.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection stays, unless it is one of those that are kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a connected peer is asked again what it is; it tells by itself when its addresses change.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// More than [`Handshakes`] lets wait, so that this limit never keeps a peer out.
const MAX_PENDING_INCOMING: u32 = 2 * MAX_HANDSHAKES as u32;
const MAX_PENDING_OUTGOING: u32 = 96;
const MAX_OUTGOING: u32 = 256;
const MAX_PER_PEER: u32 = 4;
const MAX_STREAMS: usize = 64;
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The greatest Kademlia message, in bytes: a record and twenty peers with their addresses.
const MAX_PACKET: usize = 16 * 1024;
/// How often those who store records of others pass on to the nodes that are closest by now what its owner has not put again since:
/// longer than owners take to do that, and not at one moment everywhere.
const REPLICATION_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// How long a provider record holds; providers announce themselves again every [`super::announce::REPUBLISH_INTERVAL`].
const PROVIDER_TTL: Duration = Duration::from_secs(60 * 60);
/// How often others are asked to test addresses that may be reachable.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Addresses of this node that others are asked to test at a time.
const MAX_PROBED: usize = 8;

pub(super) type Kademlia = kad::Behaviour<Table>;

/// All behaviours of a node. Those that refuse connections come first.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) keep_alive: KeepAlive,
    identify: ScopeFilter<identify::Behaviour>,
    pub(super) ping: ScopeFilter<Liveness>,
    pub(super) prober: ScopeFilter<Prober>,
    multicast: Multicast,
    pub(super) lan: ScopeFilter<Kademlia>,
    pub(super) wan: ScopeFilter<Kademlia>,
    /// Has addresses tested from outside, unless the operator says that the node is reachable.
    pub(super) reachable: ScopeFilter<Toggle<autonat::v2::client::Behaviour>>,
    dial_back: ScopeFilter<autonat::v2::server::Behaviour>,
    pub(super) relay: ScopeFilter<relay::Behaviour>,
    /// Makes and takes circuits: the other half of the transport's.
    relay_client: PanicGuard<relay::client::Behaviour>,
    /// Of a node that does not hide: one that does has a line of its own for calls.
    pub(super) calls: Toggle<Calls>,
    /// Credentials for TURN relays.
    pub(super) turn: ScopeFilter<TurnExchange>,
    pub(super) clock: ScopeFilter<ClockExchange>,
}

impl Behaviour {
    /// The DHT of a scope.
    pub(super) fn kad(&mut self, scope: AddressScope) -> &mut Kademlia {
        &mut self.filtered_kad(scope).inner
    }

    /// The DHT of a scope, with its filter.
    pub(super) fn filtered_kad(&mut self, scope: AddressScope) -> &mut ScopeFilter<Kademlia> {
        match scope {
            AddressScope::Lan => &mut self.lan,
            AddressScope::Wan => &mut self.wan,
        }
    }

    /// How many peers the routing table of a scope has.
    pub(super) fn peers(&mut self, scope: AddressScope) -> usize {
        self.kad(scope).kbuckets().map(|bucket| bucket.num_entries()).sum()
    }
}

/// Makes the `Swarm` on the port.
pub(super) fn swarm(
    config: &RendezvousConfig,
    port: Arc<Port>,
    incoming: mpsc::Receiver<Accepted>,
    handshakes: Handshakes,
    departures: Departures,
    interfaces_changed: mpsc::Receiver<()>,
) -> Result<Swarm<Behaviour>, RendezvousError> {
    let keys = keys_of(&config.secret)?;
    let peer = keys.public().to_peer_id();
    let (circuits, relay_client) = relay::client::new(peer);
    let traffic = port.traffic().clone();
    let direct = PortTransport::new(port.clone(), incoming, handshakes, departures).looking_when(interfaces_changed);
    let transport = upgraded(OrTransport::new(circuits, direct), &keys, UPGRADE_TIMEOUT, traffic)?;
    let hides = config.hidden.is_some();
    let mode = |serves| if serves { kad::Mode::Server } else { kad::Mode::Client };
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(config.max_incoming)),
        memory: memory_connection_limits::Behaviour::with_max_bytes(config.memory_limit),
        keep_alive: KeepAlive::new(peer),
        identify: ScopeFilter::direct(identify_behaviour(&keys, hides)),
        ping: ScopeFilter::direct(Liveness::new()),
        prober: ScopeFilter::direct(Prober::default()),
        multicast: multicast::behaviour(config.mdns, peer, port.local_addrs())?,
        // A provider record without an address is of no use, and nobody tests addresses of the local network.
        lan: ScopeFilter::new(AddressScope::Lan, kademlia(peer, AddressScope::Lan, mode(!hides)))
            .where_it_listens(!hides),
        wan: ScopeFilter::new(AddressScope::Wan, kademlia(peer, AddressScope::Wan, mode(config.public))),
        reachable: ScopeFilter::new(AddressScope::Wan, (!config.public && !hides).then(autonat_client).into()),
        dial_back: ScopeFilter::direct(autonat::v2::server::Behaviour::default()),
        relay: ScopeFilter::new(AddressScope::Wan, circuit_relay::relay(peer)),
        relay_client: PanicGuard::new(relay_client),
        calls: (!hides).then(|| Calls::new(peer, false)).into(),
        turn: ScopeFilter::direct(turn::behaviour(config.turn.is_some())),
        clock: ScopeFilter::direct(clocks::behaviour(hides)),
    };
    Ok(Swarm::new(transport, behaviour, peer, settings()))
}

/// The keys of a peer.
pub(super) fn keys_of(secret: &[u8; 32]) -> Result<Keypair, RendezvousError> {
    Keypair::ed25519_from_bytes(*secret).map_err(|error| RendezvousError::Setup(error.to_string()))
}

/// Encrypts the connections of a transport, multiplexes them, and counts their bytes.
pub(super) fn upgraded<T>(
    transport: T,
    keys: &Keypair,
    timeout: Duration,
    traffic: Traffic,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, RendezvousError>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::ListenerUpgrade: Send,
    T::Dial: Send,
{
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MAX_STREAMS);
    let noise = noise::Config::new(keys).map_err(|error| RendezvousError::Setup(error.to_string()))?;
    let upgraded = transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(QuietYamux(streams))
        .timeout(timeout)
        .map(move |(peer, muxer), point| (peer, metered(muxer, &point, traffic.clone())));
    Ok(upgraded.boxed())
}

/// The settings of a `Swarm`.
pub(super) fn settings() -> swarm::Config {
    swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        // Saves a round trip for each stream: the request goes out with the name of the protocol.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
}

/// The limits of a `Swarm` in which so many incoming connections may stand.
pub(super) fn connection_limits(max_incoming: usize) -> ConnectionLimits {
    // Those that are being pushed out still count.
    let max_incoming = (2 * max_incoming).try_into().unwrap_or(u32::MAX);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established_incoming(Some(max_incoming))
        .with_max_established_outgoing(Some(MAX_OUTGOING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

/// What tells others what this node is; one that hides tells them none of its addresses.
fn identify_behaviour(keys: &Keypair, hides: bool) -> identify::Behaviour {
    let config = identify::Config::new(PROTOCOL_VERSION.to_owned(), keys.public())
        .with_agent_version(concat!("keyferry/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        .with_hide_listen_addrs(hides)
        .with_interval(IDENTIFY_INTERVAL)
        // libp2p would dial addresses from this cache, which knows no scopes.
        .with_cache_size(0);
    identify::Behaviour::new(config)
}

fn autonat_client() -> autonat::v2::client::Behaviour {
    let config =
        autonat::v2::client::Config::default().with_max_candidates(MAX_PROBED).with_probe_interval(PROBE_INTERVAL);
    autonat::v2::client::Behaviour::new(rand::make_rng(), config)
}

/// How many peers of a scope's DHT are to store a record, and so how many a query looks for. Peers of
/// a local network come and go less, and answer sooner, than those of the wide area.
pub(super) const fn copies(scope: AddressScope) -> NonZeroUsize {
    match scope {
        AddressScope::Lan => NonZeroUsize::new(8).expect("not zero"),
        AddressScope::Wan => NonZeroUsize::new(20).expect("not zero"),
    }
}

/// The protocol of the DHT of a scope.
pub(super) fn protocol(scope: AddressScope) -> StreamProtocol {
    match scope {
        AddressScope::Lan => LAN_PROTOCOL,
        AddressScope::Wan => WAN_PROTOCOL,
    }
}

fn kademlia(peer: PeerId, scope: AddressScope, mode: kad::Mode) -> Kademlia {
    let mut config = kad::Config::new(protocol(scope));
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_caching(kad::Caching::Disabled)
        .disjoint_query_paths(true)
        .set_replication_factor(copies(scope))
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(REQUEST_TIMEOUT)
        .set_max_packet_size(MAX_PACKET)
        .set_record_ttl(Some(MAX_LIFETIME))
        .set_replication_interval(Some(REPLICATION_INTERVAL.mul_f64(1.0 + rand::random::<f64>() / 4.0)))
        // `upkeep` looks after the tables.
        .set_periodic_bootstrap_interval(None)
        // `announce` publishes again, at its own pace.
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_provider_record_ttl(Some(PROVIDER_TTL));
    let mut kademlia = kad::Behaviour::with_config(peer, Table::new(peer), config);
    kademlia.set_mode(Some(mode));
    kademlia
}
