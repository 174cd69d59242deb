//! How many bytes a second a TURN server relays, each way, with and without Nagle's algorithm at the ends and with small windows.
//!
//! ```text
//! turnserver -n -L 127.0.0.1 -E 127.0.0.1 -p 3478 --lt-cred-mech --user u:p --realm r --allow-loopback-peers --cli-password x
//! cargo run --release -p keyferry --example relay_throughput -- turn:u:p@127.0.0.1 [rounds]
//! ```
//! Each round relays for a second. `window` is what the socket buffers of both ends are set to (0: as the system has them), `write` how
//! much the sender writes at once, and whether it then waits for a byte of the receiver's, as protocols with windows of their own do.

use std::time::{Duration, Instant};

use anyhow::Context;
use keyferry::{
    net::path::PathStream,
    reach::turn_client::{AddressFamily, Allocation, TurnServer},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long one measurement takes.
const ROUND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Variant {
    nodelay: bool,
    window: usize,
    write: usize,
    waits: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let server = TurnServer::parse(&arguments.next().context("name a server: turn:user:password@host")?)?;
    let rounds: usize = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    println!("{:<8}{:<8}{:<8}{:<7}{:<11}MiB/s", "nodelay", "window", "write", "waits", "direction");
    let kinds = [
        (0, 256 << 10, false),
        (64 << 10, 64 << 10, false),
        (32 << 10, 64 << 10, false),
        (16 << 10, 64 << 10, false),
        (64 << 10, 64 << 10, true),
        (0, 64 << 10, true),
        (0, 100_000, true),
        (0, 1000, true),
    ];
    for nodelay in [true, false] {
        for (window, write, waits) in kinds {
            let variant = Variant { nodelay, window, write, waits };
            for to_peer in [true, false] {
                let mut speeds = Vec::new();
                for _ in 0..rounds {
                    speeds.push(format!("{:.1}", measure(&server, variant, to_peer).await?));
                }
                let direction = if to_peer { "to peer" } else { "from peer" };
                println!("{nodelay:<8}{window:<8}{write:<8}{waits:<7}{direction:<11}{}", speeds.join(" "));
            }
        }
    }
    Ok(())
}

async fn measure(server: &TurnServer, variant: Variant, to_peer: bool) -> anyhow::Result<f64> {
    let allocation = Allocation::make(server, AddressFamily::V4).await?;
    let peers = TcpListener::bind("127.0.0.1:0").await?;
    if variant.window > 0 {
        // Before the connection, so that the whole connection has it.
        SockRef::from(&peers).set_recv_buffer_size(variant.window)?;
    }
    let relayed = allocation.connector().relay_to(peers.local_addr()?).await?;
    let (peer, _) = peers.accept().await?;
    set(relayed.tcp(), variant)?;
    set(&peer, variant)?;
    let peer = PathStream::from(peer);
    if to_peer { carry(relayed, peer, variant).await } else { carry(peer, relayed, variant).await }
}

fn set(tcp: &TcpStream, variant: Variant) -> anyhow::Result<()> {
    tcp.set_nodelay(variant.nodelay)?;
    if variant.window > 0 {
        SockRef::from(tcp).set_send_buffer_size(variant.window)?;
        SockRef::from(tcp).set_recv_buffer_size(variant.window)?;
    }
    Ok(())
}

async fn carry(mut from: PathStream, mut to: PathStream, variant: Variant) -> anyhow::Result<f64> {
    let sender = tokio::spawn(async move {
        let piece = vec![7; variant.write];
        loop {
            from.write_all(&piece).await?;
            from.flush().await?;
            if variant.waits {
                from.read_u8().await?;
            }
        }
        #[expect(unreachable_code, reason = "the type of the errors above")]
        std::io::Result::Ok(())
    });
    let (started, mut got, mut piece) = (Instant::now(), 0, vec![0; variant.write]);
    let receive = async {
        while to.read_exact(&mut piece).await.is_ok() {
            got += piece.len();
            if variant.waits && (to.write_u8(1).await.is_err() || to.flush().await.is_err()) {
                break;
            }
        }
    };
    // Endless: the time is up, or the relay has closed it.
    let _ = timeout(ROUND, receive).await;
    sender.abort();
    Ok(got as f64 / started.elapsed().as_secs_f64() / f64::from(1 << 20))
}
