//! Measures the session layer on loopback: plain TCP, TLS alone and a whole session, interleaved, two processes each,
//! with the CPU time of both sides.
//!
//! ```sh
//! cargo run --release -p keyferry --example session_throughput -- [MiB] [rounds] [only this kind]
//! ```

use std::{env, io::Write as _, net::SocketAddr, process::Stdio, time::Instant};

use anyhow::{Context as _, bail};
use keyferry::net::{
    path::{AddressPolicy, AnyPort, Path, PathReport},
    session::{Session, SessionTls},
};
use keyferry_proto::{dialling::Sought, identity::NodeSecret};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BLOCK: usize = 256 * 1024;

fn main() -> anyhow::Result<()> {
    let one_thread = env::var_os("ONE_THREAD").is_some();
    let mut builder = match one_thread {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()?.block_on(async { tokio::spawn(run()).await? })
}

async fn run() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().map(String::as_str) == Some("send") {
        return send(&args[1], args[2].parse()?, args[3].parse()?).await;
    }
    let mebibytes: usize = args.first().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = args.get(1).map_or(Ok(5), |text| text.parse())?;
    let only = args.get(2);
    let kinds: Vec<&str> = ["tcp", "session"].into_iter().filter(|kind| only.is_none_or(|only| only == kind)).collect();
    let mut results = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds {
        for (kind, results) in kinds.iter().zip(&mut results) {
            results.push(receive(kind, mebibytes).await?);
        }
    }
    println!("{:8} {:>8} {:>6}  {:>22} {:>22}", "", "MiB/s", "ratio", "receiver s CPU per GiB", "sender s CPU per GiB");
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let plain = median(results[0].iter().map(|(rate, _, _)| *rate).collect());
    for (kind, results) in kinds.iter().zip(results) {
        let rate = median(results.iter().map(|(rate, _, _)| *rate).collect());
        let receiver = median(results.iter().map(|(_, cpu, _)| *cpu).collect());
        let sender = median(results.iter().map(|(_, _, cpu)| *cpu).collect());
        println!("{kind:8} {rate:8.0} {:6.2}  {receiver:22.2} {sender:22.2}", rate / plain);
    }
    println!("resident at most: {} KiB here", resident_peak().unwrap_or_default());
    Ok(())
}

/// Receives everything from a sender in another process; returns MiB/s and the CPU seconds per GiB of both sides.
async fn receive(kind: &str, mebibytes: usize) -> anyhow::Result<(f64, f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let child = std::process::Command::new(env::current_exe()?)
        .args(["send", kind, &addr.to_string(), &mebibytes.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let expected = mebibytes as u64 * 1024 * 1024;
    let got = match kind {
        "tcp" => drain(stream).await?,
        _ => {
            let tls = SessionTls::new(&NodeSecret::from_bytes(&[1; 32]))?;
            let policy = AddressPolicy::for_listeners(&[addr])?;
            let path = Path { stream: stream.into(), report: PathReport::accepted(remote, &policy) };
            let (_session, mut streams) = Session::accept(path, &tls).await?;
            let mut stream = streams.next().await.context("no stream came")?;
            let got = drain(&mut stream).await?;
            stream.write_all(b"!").await?;
            stream.shutdown().await?;
            while streams.next().await.is_some() {}
            got
        }
    };
    if got != expected {
        bail!("expected {expected} bytes, got {got}");
    }
    let took = started.elapsed().as_secs_f64();
    let own = cpu_seconds()? - cpu;
    let output = child.wait_with_output()?;
    let theirs: f64 = String::from_utf8(output.stdout)?.trim().parse().context("the sender's CPU time")?;
    let gibibytes = mebibytes as f64 / 1024.0;
    Ok((mebibytes as f64 / took, own / gibibytes, theirs / gibibytes))
}

async fn drain(mut stream: impl AsyncRead + Unpin) -> anyhow::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut got = 0;
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok(got),
            n => got += n as u64,
        }
    }
}

/// The other process: sends, and prints its CPU time.
async fn send(kind: &str, addr: SocketAddr, mebibytes: usize) -> anyhow::Result<()> {
    match kind {
        "tcp" => fill(TcpStream::connect(addr).await?, mebibytes).await?,
        _ => {
            let secret = NodeSecret::from_bytes(&[2; 32]);
            let expected = NodeSecret::from_bytes(&[1; 32]).public();
            let policy = AddressPolicy::for_listeners(&[])?;
            let admitted = policy.admit(&[], &[addr]);
            let tls = SessionTls::new(&secret)?;
            let (session, _streams) =
                Session::connect(&AnyPort, &admitted, &policy, &tls, Sought::Node(expected)).await?;
            let mut stream = session.open().await?;
            fill(&mut stream, mebibytes).await?;
            stream.read_exact(&mut [0]).await?;
            session.close();
            session.closed().await;
        }
    }
    writeln!(std::io::stdout(), "{}", cpu_seconds()?)?;
    Ok(())
}

async fn fill(mut stream: impl AsyncWrite + Unpin, mebibytes: usize) -> anyhow::Result<()> {
    let block = vec![7; BLOCK];
    for _ in 0..mebibytes * 1024 * 1024 / BLOCK {
        stream.write_all(&block).await?;
    }
    stream.shutdown().await?;
    Ok(())
}

/// User and system time of this process, by /proc (Linux only), in seconds.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(") ").next().context("no name in stat")?;
    let ticks =
        |index: usize| after_name.split(' ').nth(index).context("stat is short")?.parse::<f64>().context("ticks");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
