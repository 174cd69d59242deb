//! Strangers who take all places: sessions, uploads, files. Others still get in.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use keyferry::net::{
    path::{AddressPolicy, Path, PathReport},
    session::{InboundStreams, Session, SessionTls},
};
use keyferry_proto::{
    dialling::Sought,
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
    message::{ContentRequest, Message, Request},
    transfer::units::UnitRanges,
};
use keyferry_tests::{
    binary, content,
    hostile::Peer,
    lab::{Lab, SOON},
    process::Keyferry,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    runtime::Runtime,
};

/// Sessions that one host tries to have: more than a node takes of all.
const SESSIONS: u16 = 300;
/// Size of the file whose upload is drawn out.
const LARGE: u64 = 32 << 20;

/// A node that shares a file, and how it is reached.
struct Victim {
    lab: Lab,
    _sharer: Keyferry,
    address: String,
    hash: ContentHash,
    addr: SocketAddr,
    node: NodeKey,
}

fn victim(size: u64) -> Result<Victim> {
    let lab = Lab::new()?;
    let source = lab.path("file");
    content::random_file(&source, 1, size)?;
    let (sharer, shared) = lab.share("sharer", &source)?;
    let address = shared.address_with_hints.to_string();
    let port = address.rsplit("/tcp/").next().context("a hint with a port")?.parse()?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let node = shared.address.node().context("an address of a node")?;
    Ok(Victim { lab, _sharer: sharer, address, hash: shared.hash, addr, node })
}

/// A session of a stranger at another address than those of this test's nodes.
async fn strange_session(victim: &Victim, number: u16) -> Result<(Session, InboundStreams)> {
    let mut secret = [7; 32];
    secret[..2].copy_from_slice(&number.to_be_bytes());
    let tls = SessionTls::new(&NodeSecret::from_bytes(&secret))?;
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse()?)?;
    let stream = socket.connect(victim.addr).await?;
    let report = PathReport::dialled(victim.addr, &AddressPolicy::for_listeners(&[victim.addr])?, Duration::ZERO);
    let path = Path { stream: stream.into(), report };
    let (session, streams) = Session::dial(path, &tls, Sought::Node(victim.node)).await?;
    session.hello().await.context("the node says hello")?;
    Ok((session, streams))
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

#[test]
fn a_host_with_more_sessions_than_there_are_places_keeps_nobody_out() -> Result<()> {
    let victim = victim(100_000)?;
    let runtime = runtime()?;
    let held = runtime.block_on(async {
        let mut held = Vec::new();
        for number in 0..SESSIONS {
            held.push(strange_session(&victim, number).await);
        }
        held
    });
    let standing = held.iter().flatten().filter(|(session, _)| session.end().is_none()).count();
    ensure!(standing >= 200, "only {standing} sessions stand");

    let out = victim.lab.folder("out")?;
    victim.lab.get("getter", &victim.address, &out)?.fetched()?;

    let still = held.iter().flatten().filter(|(session, _)| session.end().is_none()).count();
    ensure!(still >= 200, "only {still} sessions are left");
    Ok(())
}

#[test]
fn who_asks_a_node_that_has_no_place_hears_that_it_is_busy() -> Result<()> {
    let lab = Lab::new()?;
    let busy = Peer::start_busy(9)?;
    let (node, file) = (format!("keyferry:{}?{}", busy.node(), busy.hint()), busy.address_of("file"));
    for asked in [&["ls", &node][..], &["get", "--wait", "none", &file]] {
        let outcome = lab.run("asker", asked)?;
        let failure = outcome.failure()?;
        ensure!(failure.message == "that node is busy", "{asked:?}: {failure:?}");
    }
    Ok(())
}

#[test]
fn a_host_that_draws_out_all_uploads_keeps_nobody_from_the_content() -> Result<()> {
    let victim = victim(LARGE)?;
    let runtime = runtime()?;
    let everything = Request::Content(ContentRequest::groups(victim.hash, UnitRanges::all())).to_frame();
    let _held = runtime.block_on(async {
        let mut held = Vec::new();
        for number in 0..20 {
            let (session, streams) = strange_session(&victim, number).await?;
            for _ in 0..4 {
                let mut stream = session.open().await?;
                stream.write_all(&everything).await?;
                stream.flush().await?;
                // Slow enough to take minutes, and quick enough not to be given up.
                tokio::spawn(async move {
                    let mut some = [0; 16 * 1024];
                    while stream.read_exact(&mut some).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                });
            }
            held.push((session, streams));
        }
        anyhow::Ok(held)
    })?;

    let out = victim.lab.folder("out")?;
    victim.lab.get("getter", &victim.address, &out)?.fetched()?;
    Ok(())
}

#[test]
fn a_peer_that_says_more_than_its_request_gets_no_answer() -> Result<()> {
    let victim = victim(LARGE)?;
    runtime()?.block_on(async {
        let (session, _streams) = strange_session(&victim, 0).await?;
        let mut stream = session.open().await?;
        let request = Request::Content(ContentRequest::groups(victim.hash, UnitRanges::all())).to_frame();
        stream.write_all(&request).await?;
        stream.write_all(&[0]).await?;
        stream.flush().await?;
        let mut read = 0;
        let mut buffer = vec![0; 64 * 1024];
        let end = loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(len) => read += len as u64,
                Err(error) => break Err(error),
            }
        };
        ensure!(end.is_err() && read < LARGE, "{read} bytes were sent, and then {end:?}");
        Ok(())
    })
}

#[test]
fn every_node_may_have_as_many_files_open_as_the_system_allows() -> Result<()> {
    let lab = Lab::new()?;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$@\"", "sh"]).arg(binary::keyferry()?);
    lab.arguments(&mut command, "node", ["node"]);
    let mut node = Keyferry::start(command)?;
    node.wait_status(SOON)?;

    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid()))?;

    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    let [soft, hard] = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else {
        anyhow::bail!("not two limits: {line}");
    };
    ensure!(soft == hard, "{line}");
    Ok(())
}
