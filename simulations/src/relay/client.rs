//! A client process that reads through a relay: one connection to its end, or many for a while.
//!
//! What it is not: a fetch of Keyferry's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use keyferry::{
    net::path::PathStream,
    reach::turn_client::{AddressFamily, Allocation, TurnServer},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    task::JoinSet,
    time::{sleep, timeout},
};

const BUFFER_LEN: usize = 256 * 1024;

/// From the first of many connections until all are asked how far they have come, besides the time they are given.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// What to read.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The relay, as `turn:USER:PASSWORD@HOST:PORT`.
    uri: String,
    /// The ports on 127.0.0.1 that the relay is to connect to: one for each connection.
    #[arg(required = true)]
    ports: Vec<u16>,
    /// So many bytes have to come over one connection.
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// Instead: read from all connections for so long, and print what each has carried as JSON.
    #[arg(long)]
    seconds: Option<u64>,
}

/// What many connections have carried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// Each, in bytes.
    pub(crate) bytes: Vec<u64>,
}

/// Starts this executable as a client of one connection. The time from its start until its end.
pub(super) fn fetch_through(uri: &str, port: u16, bytes: u64) -> Result<Duration> {
    let began = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay-client", uri, &port.to_string(), "--bytes", &bytes.to_string()]);
    let status = command.status()?;
    ensure!(status.success(), "the client of the relay failed: {status}");
    Ok(began.elapsed())
}

/// The client.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let server = TurnServer::parse(&options.uri)?;
        let allocation = Allocation::make(&server, AddressFamily::V4).await?;
        let targets: Vec<_> = options.ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect();
        match options.seconds {
            None => one(&allocation, targets[0], options.bytes).await,
            Some(seconds) => many(&allocation, &targets, Duration::from_secs(seconds)).await,
        }
    })
}

async fn one(allocation: &Allocation, target: SocketAddr, expected: u64) -> Result<()> {
    let mut stream = allocation.connector().relay_to(target).await?;
    let mut buffer = vec![0; BUFFER_LEN];
    // Not to the end of what the peer says: coturn drops what it still has when the peer closes.
    let mut left = expected;
    let read = async {
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                len => left = left.saturating_sub(len as u64),
            }
        }
        std::io::Result::Ok(())
    };
    timeout(READ_TIMEOUT, read).await.context("the relay is too slow")??;
    ensure!(left == 0, "{left} of {expected} bytes have not come");
    Ok(())
}

async fn many(allocation: &Allocation, targets: &[SocketAddr], during: Duration) -> Result<()> {
    let mut streams = Vec::new();
    for target in targets {
        streams.push(allocation.connector().relay_to(*target).await?);
    }
    let mut readers = JoinSet::new();
    for stream in streams {
        readers.spawn(read_during(stream, during));
    }
    let bytes = readers.join_all().await;
    println!("{}", serde_json::to_string(&Carried { bytes })?);
    Ok(())
}

/// How many bytes come in that time.
async fn read_during(mut stream: PathStream, during: Duration) -> u64 {
    let mut buffer = vec![0; 64 * 1024];
    let mut carried = 0;
    let read = async {
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            carried += len as u64;
        }
    };
    tokio::select! {
        () = read => {}
        () = sleep(during) => {}
    }
    carried
}
