//! What it costs a node that has very many roots to turn away strangers who guess what is there: ClientHellos that are well-formed, with a wrong proof,
//! from many addresses.
//!
//! What it is not: a flood to the limit. It says what a given rate costs, in the node's own CPU time.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use keyferry::{
    ContentHash, NodeSecret,
    net::session::{EarlyDial, SessionTls},
};
use keyferry_proto::dialling::Sought;
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    content,
    lab::{Lab, Process},
    measure::{Usage, median},
};

/// The size of each root. What is in them is of no account here.
const ROOT_LEN: usize = 64;
/// When the roots came into the store.
const ADDED: u64 = 1_790_000_000;
/// The node's CPU time is looked at for so long, until it has come to rest after its start.
const CALM_WINDOW: Duration = Duration::from_secs(3);
/// Whoever uses less of a core has come to rest.
const CALM_PERCENT: f64 = 1.0;
/// How long it may take to come to rest.
const CALM_PATIENCE: Duration = Duration::from_secs(180);
/// Strangers that may wait for the node's answer together; when that many do, the rate falls.
const MAX_WAITING: usize = 2048;
/// How long a stranger waits for an answer.
const STRANGER_PATIENCE: Duration = Duration::from_secs(15);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many roots the node offers to whoever knows their hashes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    roots: u32,
    /// How many hellos a second strangers send.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// From how many addresses.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    hosts: u32,
    /// For how many seconds; for as long the node is looked at without them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The figures.
#[derive(Debug, Serialize)]
struct Report {
    roots: u32,
    hosts: u32,
    seconds: f64,
    hellos: u64,
    hellos_per_second: f64,
    /// What the node used of a core without strangers, and with them.
    idle_percent: f64,
    busy_percent: f64,
    /// The difference: what the strangers cost.
    percent_of_a_core: f64,
    /// The same, each.
    microseconds_each: f64,
    /// From a hello until the node has closed, in milliseconds.
    median_closed_ms: f64,
    longest_closed_ms: f64,
    /// The most that the node had resident.
    peak_resident_bytes: u64,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let lab = Lab::new(options.dir.as_deref())?;
    let last = make_roots(&lab, options.roots)?;
    let (node, status) = lab.node("node")?;
    let port = *status.listen.first().context("a node listens")?;
    // It has what it is to be guessed from.
    let hint = format!("keyferry:{last}?via=/ip4/127.0.0.1/tcp/{}", port.port());
    lab.get("getter", hint, &lab.folder("out")?)?;
    wait_until_calm(&node)?;

    let window = Duration::from_secs(options.seconds);
    let idle_percent = percent_used(&node, || thread::sleep(window))?.0;
    let mut crowd = None;
    let (busy_percent, took) = percent_used(&node, || crowd = Some(Crowd::run(port, options)))?;
    let crowd = crowd.context("nobody came")??;
    let percent_of_a_core = busy_percent - idle_percent;
    let hellos = crowd.closed_ms.len() as u64;
    let report = Report {
        roots: options.roots,
        hosts: options.hosts,
        seconds: took.as_secs_f64(),
        hellos,
        hellos_per_second: hellos as f64 / took.as_secs_f64(),
        idle_percent,
        busy_percent,
        percent_of_a_core,
        microseconds_each: percent_of_a_core / 100.0 * took.as_secs_f64() * 1e6 / hellos as f64,
        median_closed_ms: median(&crowd.closed_ms),
        longest_closed_ms: crowd.closed_ms.iter().copied().fold(0.0, f64::max),
        peak_resident_bytes: Usage::of(node.pid())?.peak_resident_bytes,
    };
    match json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => report.print(),
    }
    Ok(())
}

impl Report {
    fn print(&self) {
        println!("\n{} roots, hellos with wrong proofs from {} addresses:\n", self.roots, self.hosts);
        println!("  hellos                {:>9.0} a second, for {:.1} s", self.hellos_per_second, self.seconds);
        println!("  without them          {:>9.2} % of a core", self.idle_percent);
        println!("  with them             {:>9.2} %", self.busy_percent);
        println!("  they cost             {:>9.2} %, {:.0} us each", self.percent_of_a_core, self.microseconds_each);
        println!(
            "  closed after          {:>9.2} ms (median), {:.0} ms at most",
            self.median_closed_ms, self.longest_closed_ms
        );
        println!("  memory of the node    {:>9.1} MiB at most", self.peak_resident_bytes as f64 / crate::measure::MIB);
    }
}

/// Fills the data folder of the lab's `node` with roots that are there for whoever knows their hashes, and gives the last one.
///
/// Commands would write the whole list once for each root. So the list is written as commands leave it, once; the node makes its index from it.
fn make_roots(lab: &Lab, count: u32) -> Result<ContentHash> {
    lab.timed("node", ["id"])?;
    let home = lab.path("node");
    let (mut roots, mut last) = (Vec::with_capacity(count as usize), None);
    for number in 0..count {
        let bytes = content::random_bytes(u64::from(number), ROOT_LEN);
        let hash = ContentHash::of(&bytes);
        let name = hash.to_string();
        let folder = home.join("blobs").join(&name[..2]);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(&name), bytes)?;
        roots.push(json!({
            "hash": name, "format": "blob", "size": ROOT_LEN, "files": 1, "state": "seeded", "origin": { "kind": "copied" },
            "added": ADDED,
        }));
        last = Some(hash);
    }
    let mut file = fs::File::create(home.join("roots.json"))?;
    file.write_all(&serde_json::to_vec(&json!({ "version": 2, "roots": roots }))?)?;
    last.context("there is a root")
}

/// Waits until a node that has just started has told the DHT what it has, as far as it does.
fn wait_until_calm(node: &Process) -> Result<()> {
    let deadline = Instant::now() + CALM_PATIENCE;
    while percent_used(node, || thread::sleep(CALM_WINDOW))?.0 > CALM_PERCENT {
        ensure!(Instant::now() < deadline, "the node has not come to rest within {CALM_PATIENCE:?}");
    }
    Ok(())
}

/// How much of a core a node uses while something is done, and how long that takes.
fn percent_used(node: &Process, act: impl FnOnce()) -> Result<(f64, Duration)> {
    let (before, began) = (Usage::of(node.pid())?, Instant::now());
    act();
    let took = began.elapsed();
    let used = Usage::of(node.pid())?.since(before);
    Ok((used.cpu_seconds / took.as_secs_f64() * 100.0, took))
}

/// What strangers have seen.
#[derive(Debug, Default)]
struct Crowd {
    closed_ms: Vec<f64>,
}

impl Crowd {
    /// Has strangers come at a steady rate.
    fn run(port: SocketAddr, options: &Options) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(Self::come(port, options))
    }

    async fn come(port: SocketAddr, options: &Options) -> Result<Self> {
        let tls = SessionTls::new(&NodeSecret::from_bytes(&rand::random()))?;
        let (mut crowd, mut strangers) = (Self::default(), JoinSet::new());
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        let mut turns = interval(Duration::from_secs(1) / options.rate);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..options.rate.saturating_mul(options.seconds as u32) {
            turns.tick().await;
            let place = places.clone().acquire_owned().await?;
            let hello = bad_hello(&tls, number)?;
            let from = address(number % options.hosts);
            strangers.spawn(async move {
                let _place = place;
                time_until_closed(port, from, &hello).await
            });
            while let Some(closed) = strangers.try_join_next() {
                crowd.note(closed??);
            }
        }
        while let Some(closed) = strangers.join_next().await {
            crowd.note(closed??);
        }
        Ok(crowd)
    }

    fn note(&mut self, closed: Duration) {
        self.closed_ms.push(closed.as_secs_f64() * 1000.0);
    }
}

/// A ClientHello of someone who seeks another node, or another content.
fn bad_hello(tls: &Arc<SessionTls>, number: u32) -> Result<Vec<u8>> {
    let sought = match number % 2 {
        0 => Sought::Node(NodeSecret::from_bytes(&rand::random()).public()),
        _ => Sought::Content(ContentHash::from_bytes(rand::random())),
    };
    Ok(EarlyDial::begin(tls, sought)?.first_words().to_vec())
}

/// One of many addresses of this machine.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number).into()
}

/// Says hello and waits until the node closes, which it has to do without a word.
async fn time_until_closed(port: SocketAddr, from: IpAddr, hello: &[u8]) -> Result<Duration> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let mut stream = socket.connect(port).await?;
    let said = Instant::now();
    stream.write_all(hello).await?;
    let mut answer = [0; 64];
    match timeout(STRANGER_PATIENCE, stream.read(&mut answer)).await {
        Err(_) => bail!("a stranger's connection is still open after {STRANGER_PATIENCE:?}"),
        Ok(Ok(len)) if len > 0 => bail!("a stranger was answered: {:02x?}", &answer[..len]),
        // It may be a reset.
        Ok(_) => Ok(said.elapsed()),
    }
}
