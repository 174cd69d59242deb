//! What strangers do in the DHT. Their peers have a Kademlia without any checks, under a new key each time.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt as _, future::BoxFuture};
use keyferry::reach::rendezvous::{VERSION, multiaddr_of, socket_addr_of};
use keyferry_proto::offer::content_record_key;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, Transport,
    core::{
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
        upgrade::Version,
    },
    identify,
    identity::Keypair,
    kad::{self, Mode, Quorum, Record, RecordKey, store::MemoryStore},
    noise,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    yamux,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::attempts::{Attempt, PAUSE, Stranger};

/// Peers that a stranger is at once.
const PEERS: usize = 2;
/// How often each peer bothers the node.
const TURN: Duration = Duration::from_secs(1);
/// Invented addresses in each message of identify.
const ADDRESSES: usize = 8;
/// How large what is put is: about as an offer.
const RECORD_LEN: usize = 900;
/// How long a peer takes to connect at most.
const CONNECT: Duration = Duration::from_secs(10);
/// The DHT of the wide area.
const DHT: StreamProtocol = StreamProtocol::new("/keyferry/kad/1");

#[derive(NetworkBehaviour)]
struct Lies {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

pub(super) fn begin(stranger: &Stranger, all: &mut JoinSet<()>) {
    for _ in 0..PEERS {
        all.spawn(stranger.clone().take_part());
    }
}

impl Stranger {
    async fn take_part(self) {
        loop {
            self.note(Attempt::Peer);
            // Until it is thrown out.
            let _ = self.take_part_once().await;
            sleep(PAUSE).await;
        }
    }

    async fn take_part_once(&self) -> Result<()> {
        let mut swarm = peer()?;
        swarm.dial(multiaddr_of(self.target.port))?;
        let target = timeout(CONNECT, async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
                    SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error),
                    _ => {}
                }
            }
        });
        let target = target.await??;
        swarm.behaviour_mut().kad.add_address(&target, multiaddr_of(self.target.port));
        let mut turns = interval(TURN);
        loop {
            tokio::select! {
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } if peer_id == target => return Ok(()),
                    _ => {}
                },
                _ = turns.tick() => self.bother(&mut swarm, target)?,
            }
        }
    }

    fn bother(&self, swarm: &mut Swarm<Lies>, target: libp2p::PeerId) -> Result<()> {
        self.note(Attempt::Addresses);
        let invented: Vec<Multiaddr> = (0..ADDRESSES).map(|_| invented()).collect();
        invented.iter().for_each(|addr| swarm.add_external_address(addr.clone()));
        swarm.behaviour_mut().identify.push([target]);
        invented.iter().for_each(|addr| swarm.remove_external_address(addr));

        self.note(Attempt::Record);
        let value: Vec<u8> = (0..RECORD_LEN).map(|_| rand::random()).collect();
        let record = Record::new(RecordKey::new(&rand::random::<[u8; 32]>()), value);
        swarm.behaviour_mut().kad.put_record_to(record, [target].into_iter(), Quorum::One);

        // What everybody seeks, and what nobody does.
        for key in [*content_record_key(&self.target.content).as_bytes(), rand::random()] {
            self.note(Attempt::Provider);
            let (kad, key) = (&mut swarm.behaviour_mut().kad, RecordKey::new(&key));
            kad.stop_providing(&key);
            kad.start_providing(key)?;
        }
        Ok(())
    }
}

/// A peer that has connected to nobody yet.
fn peer() -> Result<Swarm<Lies>> {
    let keys = Keypair::generate_ed25519();
    let own = keys.public().to_peer_id();
    let transport = Outwards
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keys)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let mut kad = kad::Behaviour::with_config(own, MemoryStore::new(own), kad::Config::new(DHT));
    kad.set_mode(Some(Mode::Server));
    let version = format!("/keyferry/{VERSION}");
    let identify = identify::Behaviour::new(identify::Config::new(version, keys.public()));
    Ok(Swarm::new(transport, Lies { identify, kad }, own, swarm::Config::with_tokio_executor()))
}

/// An address on some host of the internet.
fn invented() -> Multiaddr {
    let [a, b, c] = rand::random::<[u8; 3]>();
    multiaddr_of(SocketAddr::new(Ipv4Addr::new(8, a, b, c).into(), 1024 + u16::from(a)))
}

/// Connections to TCP ports, and none from anybody.
struct Outwards;

impl Transport for Outwards {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = std::future::Pending<Result<Self::Output, io::Error>>;
    type Dial = BoxFuture<'static, Result<Self::Output, io::Error>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let remote = socket_addr_of(&addr).ok_or(TransportError::MultiaddrNotSupported(addr))?;
        Ok(Box::pin(async move { Ok(TcpStream::connect(remote).await?.compat()) }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}
