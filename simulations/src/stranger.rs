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

mod attempts;
mod dht;
mod port;
mod sessions;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use keyferry::{
    Address, AddressTarget, ContentHash, NodeSecret, net::session::SessionTls, reach::rendezvous::socket_addr_of,
};
use tokio::task::JoinSet;

use self::attempts::{Stranger, Target, Tried};

/// How often it is told what was tried.
const TELL_EVERY: Duration = Duration::from_secs(5);

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

/// Bothers a node for as long as is said.
pub(crate) fn run(options: &Options) -> Result<()> {
    let target = Arc::new(options.target()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (tried, began) = (Arc::new(Tried::default()), Instant::now());
        let mut all = JoinSet::new();
        for _ in 0..options.count {
            let tls = SessionTls::new(&NodeSecret::from_bytes(&rand::random()))?;
            let stranger = Stranger { target: target.clone(), tls, tried: tried.clone() };
            port::begin(&stranger, &mut all);
            sessions::begin(&stranger, &mut all);
            dht::begin(&stranger, &mut all);
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

impl Options {
    fn target(&self) -> Result<Target> {
        let node = self.address.node().context("an address of a node")?;
        let AddressTarget::Name(name) = self.address.target() else { anyhow::bail!("an address of a share") };
        let port = self.address.hints().iter().find_map(socket_addr_of).context("an address with a hint")?;
        Ok(Target { port, node, name: name.clone(), content: self.content })
    }
}
