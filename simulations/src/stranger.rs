//! Strangers who want all that a node has: its places, its memory, its DHT. They know its address and what it shares, as anybody may, and keep no rule.
//!
//! ```text
//! port      connections that say nothing, half a hello, or a hello with a wrong proof
//! sessions  sessions that are held, uploads that are drawn out, questions without end, frames of one byte
//! dht       peers who invent addresses, announce what they have not got, and put what is no offer
//! ```
//! Each does all of it at once, and comes back a second after it was turned away. It tells every few seconds how often it has tried what.
//!
//! What it is not: a search for the limit. What each does, and how fast, is the same in every run, as far as the machine has time for it.

mod dht;
mod port;
mod sessions;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use keyferry::{
    Address, AddressTarget, ContentHash, NodeKey, NodeSecret, ShareName, net::session::SessionTls,
    reach::rendezvous::socket_addr_of,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How often it is told what was tried.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long a stranger waits who was turned away.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom to bother.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The address of a share, with a hint.
    address: Address,
    /// The hash of that share.
    content: ContentHash,
    /// How many strangers there are on this host.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// For how long they stay.
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    stay: Duration,
}

/// A node, as strangers know it.
#[derive(Debug)]
struct Target {
    port: SocketAddr,
    node: NodeKey,
    name: ShareName,
    content: ContentHash,
}

/// What a stranger tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Silence,
    HalfHello,
    BadHello,
    Session,
    Upload,
    Question,
    SmallFrame,
    Peer,
    Addresses,
    Record,
    Provider,
}

impl Attempt {
    const ALL: [(Attempt, &'static str); 11] = [
        (Self::Silence, "silent_connections"),
        (Self::HalfHello, "half_hellos"),
        (Self::BadHello, "bad_hellos"),
        (Self::Session, "sessions"),
        (Self::Upload, "uploads"),
        (Self::Question, "questions"),
        (Self::SmallFrame, "frames_of_one_byte"),
        (Self::Peer, "dht_peers"),
        (Self::Addresses, "dht_addresses"),
        (Self::Record, "dht_records"),
        (Self::Provider, "dht_providers"),
    ];
}

/// How often what was tried, by all strangers of this process.
#[derive(Debug, Default)]
struct Tried([AtomicU64; Attempt::ALL.len()]);

impl Tried {
    fn note(&self, attempt: Attempt) {
        self.0[attempt as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn told(&self, began: Instant, strangers: u32) -> Value {
        let counts = Attempt::ALL.map(|(attempt, name)| {
            let count = self.0[attempt as usize].load(Ordering::Relaxed);
            (name.to_owned(), json!(count))
        });
        let counts: serde_json::Map<_, _> = counts.into_iter().collect();
        json!({ "event": "tried", "strangers": strangers, "seconds": began.elapsed().as_secs_f64(), "tried": counts })
    }
}

/// One of them, with a key of its own.
#[derive(Clone)]
struct Stranger {
    target: Arc<Target>,
    tls: Arc<SessionTls>,
    tried: Arc<Tried>,
}

/// Bothers a node for as long as is said.
pub(crate) fn run(options: &Options) -> Result<()> {
    let target = Arc::new(options.target()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (tried, began) = (Arc::new(Tried::default()), Instant::now());
        let mut all = JoinSet::new();
        for _ in 0..options.count {
            let tls = SessionTls::new(&NodeSecret::from_bytes(&rand::random()))?;
            Stranger { target: target.clone(), tls, tried: tried.clone() }.begin(&mut all);
        }
        let mut tell = tokio::time::interval(TELL_EVERY);
        let end = tokio::time::sleep(options.stay);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = tell.tick() => println!("{}", tried.told(began, options.count)),
            }
        }
        println!("{}", tried.told(began, options.count));
        Ok(())
    })
}

impl Stranger {
    fn begin(&self, all: &mut JoinSet<()>) {
        port::begin(self, all);
        sessions::begin(self, all);
        dht::begin(self, all);
    }

    fn note(&self, attempt: Attempt) {
        self.tried.note(attempt);
    }
}

impl Options {
    fn target(&self) -> Result<Target> {
        let node = self.address.node().context("an address of a node")?;
        let AddressTarget::Name(name) = self.address.target() else { anyhow::bail!("an address of a share") };
        let port = self.address.hints().iter().find_map(socket_addr_of).context("an address with a hint")?;
        Ok(Target { port, node, name: name.clone(), content: self.content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_is_counted_under_its_own_name() {
        let tried = Tried::default();
        for (at, (attempt, _)) in Attempt::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| tried.note(attempt));
        }
        let told = tried.told(Instant::now(), 3);
        for (at, (_, name)) in Attempt::ALL.into_iter().enumerate() {
            assert_eq!(told["tried"][name], at as u64 + 1, "{told}");
        }
    }
}
