//! A crawler of a DHT of whole nodes. It has every record, every peer and every port, and finds out neither which node is where nor what
//! any of them shares.

use std::io::ErrorKind;

use futures::{StreamExt, future::join_all};
use keyferry_proto::{
    dialling::Sought,
    identity::NodeKey,
    offer::{publish_days, record_key},
};
use libp2p::{identify, swarm::SwarmEvent, swarm::dial_opts::DialOpts};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::{hostile::Hostile, hostile::RulesEvent, *};
use crate::{
    net::session::{EarlyDial, SessionTls},
    node::{
        self, NodeConfig,
        api::{Command, Event},
        runner::Runner,
    },
};

/// How many nodes there are; the variable of this name says another number.
const NODES: (&str, usize) = ("KEYFERRY_TEST_NODES", 8);
/// How long a port may take to answer a stranger, or to close.
const PATIENCE: Duration = Duration::from_secs(1);

struct Sharer {
    node: Arc<node::Node>,
    name: String,
    hash: ContentHash,
    _folders: [TempDir; 2],
}

impl Sharer {
    async fn start(number: usize, bootstrap: &[Multiaddr]) -> Self {
        let folders = [(); 2].map(|()| TempDir::new().unwrap());
        let config = NodeConfig {
            mdns: false,
            port_mapping: false,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            bootstrap: bootstrap.to_vec(),
            // All nodes are in this process.
            memory_limit: usize::MAX,
            ..NodeConfig::default()
        };
        let node = node::Node::open(folders[0].path().to_owned(), None, config).await.unwrap();
        let name = format!("holiday of {number}.film");
        let path = folders[1].path().join(&name);
        std::fs::write(&path, format!("a film that only {number} has")).unwrap();
        let (events, mut told) = mpsc::channel(64);
        let share = Command::Share {
            paths: vec![path],
            name: None,
            copy: false,
            taken: false,
            strict: false,
            exclude: Default::default(),
            audience: None,
            watch: false,
        };
        node.run(share, events, CancellationToken::new()).await.unwrap();
        let mut hash = None;
        while let Some(event) = told.recv().await {
            if let Event::Shared(shared) = event {
                hash = Some(shared.hash);
            }
        }
        Self { node, name, hash: hash.expect("it is shared"), _folders: folders }
    }

    /// Waits until others can find what it shares.
    async fn until_announced(&self, other: &Node) {
        let key = content_record_key(&self.hash);
        soon(async { while other.rendezvous.providers(key).recv().await.is_none() {} }).await;
    }

    fn rendezvous(&self) -> &Rendezvous {
        &self.node.online.as_ref().expect("it is on the network").rendezvous
    }

    fn peer(&self) -> PeerId {
        self.rendezvous().status().borrow().peer
    }

    fn addr(&self) -> SocketAddr {
        self.node.local_addrs()[0]
    }

    fn multiaddr(&self) -> Multiaddr {
        multiaddr_of(self.addr())
    }

    /// What would tell that this node is there, or what it shares.
    fn secrets(&self) -> [Vec<u8>; 6] {
        let (key, hash) = (self.node.key(), self.hash.as_bytes().to_vec());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
        let text = key.to_string().into_bytes();
        [key.as_bytes().to_vec(), hex(key.as_bytes()), text, hex(&hash), hash, self.name.clone().into_bytes()]
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|part| part == needle)
}

/// What a port answers to whoever begins so.
async fn answer(addr: SocketAddr, first: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    let asking = async {
        stream.write_all(first).await?;
        stream.take(4096).read_to_end(&mut answer).await
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Err(error)) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => answer,
    }
}

/// All that the ports say to strangers.
async fn ask_port(addr: SocketAddr, tls: &Arc<SessionTls>) -> Vec<Vec<u8>> {
    let other: NodeKey = secret(250).public();
    let guess = |sought| EarlyDial::begin(tls, sought).unwrap().first_words().to_vec();
    let first = [
        guess(Sought::Node(other)),
        guess(Sought::Content(ContentHash::of(b"a guess"))),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec(),
        // A Binding request of STUN.
        [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat(),
    ];
    let answers = join_all(first.iter().map(|first| answer(addr, first))).await;
    assert!(answers[..3].iter().all(Vec::is_empty), "guesses are answered");
    answers
}

/// What all peers say of themselves.
async fn identify_all(crawler: &Node, sharers: &[Sharer]) -> Vec<Vec<u8>> {
    let mut hostile = Hostile::beside(crawler).await;
    let mut missing: std::collections::HashSet<PeerId> = sharers.iter().map(Sharer::peer).collect();
    for sharer in sharers {
        let dial = DialOpts::peer_id(sharer.peer()).addresses(vec![sharer.multiaddr()]).build();
        hostile.swarm.dial(dial).unwrap();
    }
    let (mut heard, mut failed) = (Vec::new(), Vec::new());
    let hearing = async {
        while !missing.is_empty() {
            match hostile.swarm.select_next_some().await {
                SwarmEvent::Behaviour(RulesEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                    missing.remove(&peer_id);
                    heard
                        .push([format!("{peer_id} {info:?}").into_bytes(), info.public_key.encode_protobuf()].concat());
                }
                SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => failed.push((peer_id, error)),
                _ => {}
            }
        }
    };
    if tokio::time::timeout(SOON, hearing).await.is_err() {
        panic!("{} peers are silent; dials that failed: {failed:#?}", missing.len());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawler_with_every_record_peer_and_port_finds_no_node_and_no_share() {
    let count = std::env::var(NODES.0).map_or(NODES.1, |number| number.parse().unwrap());
    let crawler = start(quiet_config(&[])).await;
    let mut sharers = Vec::new();
    // So many join at once as there are by default: all look for each other, which is work for one process.
    while sharers.len() < count {
        let joined = sharers.len();
        for number in joined..count.min(joined + NODES.1) {
            sharers.push(Sharer::start(number, &[multiaddr_of(crawler.addr)]).await);
        }
        join_all(sharers[joined..].iter().map(|sharer| sharer.until_announced(&crawler))).await;
    }

    let mut haystack = identify_all(&crawler, &sharers).await;
    let tls = SessionTls::new(&secret(251)).unwrap();
    let asked = join_all(sharers.iter().map(|sharer| ask_port(sharer.addr(), &tls))).await;
    haystack.extend(asked.into_iter().flatten());
    for sharer in &sharers {
        // It has no keys to look up by: it is given what they lead to.
        for day in publish_days(clock::now()).into_iter().take(1) {
            let record = soon(async {
                loop {
                    if let Some(record) = crawler.resolve(record_key(&sharer.node.key(), day)).await {
                        return record;
                    }
                }
            });
            let record = record.await;
            assert!(record.open(&sharer.node.key(), clock::now()).is_ok(), "it is what says where the node is");
            haystack.push([record.key().as_bytes(), record.as_bytes()].concat());
        }
        let key = content_record_key(&sharer.hash);
        let mut providers = crawler.rendezvous.providers(key);
        let provider = soon(providers.recv()).await.expect("it is announced");
        haystack.push([format!("{provider:?}").as_bytes(), key.as_bytes()].concat());
    }

    let haystack = haystack.concat();
    for sharer in &sharers {
        assert!(contains(&haystack, sharer.peer().to_string().as_bytes()), "the crawler has not been there");
        for secret in sharer.secrets() {
            assert!(!contains(&haystack, &secret), "{:?}", String::from_utf8_lossy(&secret));
        }
    }
    println!("{count} nodes, {} bytes", haystack.len());
    for sharer in &sharers {
        sharer.node.shutdown().await;
    }
}
