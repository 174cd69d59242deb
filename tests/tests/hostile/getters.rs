//! Getters that ask for nonsense, too much, or never listen: the sharer goes on serving others.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use keyferry::net::{
    path::{AddressPolicy, Path, PathReport},
    session::{InboundStreams, Session, SessionTls},
};
use keyferry_proto::{
    dialling::Sought,
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
    message::{ContentRequest, Hello, Message, Request, VERSION},
    transfer::units::UnitRanges,
};
use keyferry_tests::{content, lab::Lab, process::Keyferry};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::witness::still_serves;

struct Scene {
    lab: Lab,
    sharer: Keyferry,
    source: PathBuf,
    address: String,
    hash: ContentHash,
    addr: SocketAddr,
    node: NodeKey,
}

fn scene() -> Result<Scene> {
    let lab = Lab::new()?;
    let source = lab.path("file");
    content::random_file(&source, 1, 8 << 20)?;
    let (sharer, shared) = lab.share("sharer", &source)?;
    let hinted = shared.address_with_hints.to_string();
    let port = hinted.rsplit("/tcp/").next().context("a hint with a port")?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let node = shared.address.node().context("an address of a node")?;
    Ok(Scene { lab, sharer, source, address: shared.address_with_hints.to_string(), hash: shared.hash, addr, node })
}

async fn session(scene: &Scene, key: u8) -> Result<(Session, InboundStreams)> {
    let tls = SessionTls::new(&NodeSecret::from_bytes(&[key; 32]))?;
    let (addr, node) = (scene.addr, scene.node);
    let stream = TcpStream::connect(addr).await?;
    let report = PathReport::dialled(addr, &AddressPolicy::for_listeners(&[addr])?, Duration::ZERO);
    let (session, streams) = Session::dial(Path { stream: stream.into(), report }, &tls, Sought::Node(node)).await?;
    let mut control = session.open().await?;
    let hello = Hello { version: VERSION, features: u64::MAX, agent: "x".repeat(100) };
    control.write_all(&Request::Control(hello).to_frame()).await?;
    // Kept open for as long as the session lives, as a control stream is.
    tokio::spawn(async move {
        let _control = control;
        std::future::pending::<()>().await;
    });
    Ok((session, streams))
}

fn run(future: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.context("too slow")? })
}

#[test]
fn requests_that_are_nonsense_end_in_nothing_worse() -> Result<()> {
    let scene = scene()?;
    run(async {
        let everything = Request::Content(ContentRequest::groups(scene.hash, UnitRanges::all())).to_frame();
        for round in 0..60_u8 {
            let (session, _streams) = session(&scene, 50).await?;
            let mut stream = session.open().await?;
            let bytes = match round % 6 {
                0 => vec![0xff; 4],
                1 => vec![0; 70_000],
                2 => content::random_bytes(round.into(), 5000),
                3 => everything[..everything.len() - 1].to_vec(),
                4 => {
                    let mut bytes = everything.clone();
                    let at = usize::from(round) % bytes.len();
                    bytes[at] ^= 0x80;
                    bytes
                }
                _ => [&everything[..], &everything].concat(),
            };
            // The sharer may close on us at any point: that is its right.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Ok(())
    })?;
    still_serves(&scene.lab, &scene.address, &scene.source)?;
    ensure!(!scene.sharer.stderr().contains("panicked"), "{}", scene.sharer.stderr());
    Ok(())
}

#[test]
fn getters_that_never_read_do_not_block_others() -> Result<()> {
    let scene = scene()?;
    run(async {
        let mut kept = Vec::new();
        for key in 60..70 {
            let (session, streams) = session(&scene, key).await?;
            let request = ContentRequest::groups(scene.hash, UnitRanges::all());
            for _ in 0..8 {
                let mut stream = session.open().await?;
                stream.write_all(&Request::Content(request.clone()).to_frame()).await?;
                stream.flush().await?;
                kept.push(stream);
            }
            std::mem::forget(streams);
            std::mem::forget(session);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| still_serves(&scene.lab, &scene.address, &scene.source))
    })
}

#[test]
fn ranges_beyond_the_end_are_no_content() -> Result<()> {
    let scene = scene()?;
    run(async {
        let (session, _streams) = session(&scene, 80).await?;
        for ranges in [UnitRanges::from(1 << 40..u64::MAX), UnitRanges::from(u64::MAX - 2..u64::MAX - 1)] {
            let mut stream = session.open().await?;
            let request = Request::Content(ContentRequest::groups(scene.hash, ranges));
            stream.write_all(&request.to_frame()).await?;
            stream.shutdown().await?;
            let mut reply = Vec::new();
            let mut limited = tokio::io::AsyncReadExt::take(stream, 1000);
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut limited, &mut reply).await;
            ensure!(reply.len() < 100, "{} bytes for nothing", reply.len());
        }
        Ok(())
    })?;
    still_serves(&scene.lab, &scene.address, &scene.source)
}
