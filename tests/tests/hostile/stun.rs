//! What a stranger may send as STUN to the node's port: cut anywhere, too long, garbage, nothing, and far too much of it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use keyferry_ice::Config;
use keyferry_tests::{
    content,
    ice::{
        check::{bare_request, class_of},
        node::IceNode,
    },
    lab::SOON,
};
use stun_types::message::MessageClass;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Where those who mean well come from.
const FRIEND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where a flood comes from.
const FLOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The header of a STUN message, which tells its length.
const HEADER_LEN: usize = 20;

pub(crate) async fn node() -> Result<IceNode> {
    IceNode::start(SocketAddr::new(FRIEND, 0), Config::default()).await
}

pub(crate) async fn connect_from(ip: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ip, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Files and sockets that this process, and so the node in it, has open.
pub(crate) fn open_files() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Waits until no more files are open than there were.
pub(crate) async fn files_are_closed_again(before: usize) -> Result<()> {
    timeout(SOON, async {
        while open_files()? > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
    .unwrap_or_else(|_| Err(anyhow::anyhow!("{} files are open where {before} were", open_files()?)))
}

/// Waits until the other side has closed a connection, without having said anything more.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> Result<()> {
    let mut said = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(SOON, stream.read_to_end(&mut said)).await?;
    ensure!(said.is_empty(), "{} bytes were said", said.len());
    Ok(())
}

async fn is_answered(stream: &mut TcpStream) -> Result<()> {
    let answer = timeout(SOON, read_plain(stream)).await??;
    ensure!(class_of(&answer) == Some(MessageClass::Success), "not a success response");
    Ok(())
}

async fn read_plain(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER_LEN];
    stream.read_exact(&mut message).await?;
    let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
    message.resize(HEADER_LEN + len, 0);
    stream.read_exact(&mut message[HEADER_LEN..]).await?;
    Ok(message)
}

#[tokio::test]
async fn a_request_that_is_cut_anywhere_is_answered() -> Result<()> {
    let node = node().await?;
    let request = bare_request();
    for at in 1..request.len() {
        let mut stream = connect_from(FRIEND, node.addr).await?;
        stream.write_all(&request[..at]).await?;
        // Long enough for the first piece to be looked at by itself.
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.write_all(&request[at..]).await?;
        is_answered(&mut stream).await?;
        // And again on the same connection, together with the half of a third one.
        stream.write_all(&[&request[..], &request[..at]].concat()).await?;
        is_answered(&mut stream).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_request_is_closed_and_counted() -> Result<()> {
    let node = node().await?;
    let before = open_files()?;
    let request = bare_request();
    let mut answer = request.clone();
    answer[..2].copy_from_slice(&[0x01, 0x01]);
    let mut too_long = request.clone();
    too_long[2..4].copy_from_slice(&[0xff, 0xfc]);
    let mut odd_length = request.clone();
    odd_length[2..4].copy_from_slice(&[0x00, 0x01]);
    let mut framed_too_long = [&[0xff, 0xff][..], &request].concat();
    framed_too_long.resize(70_000, 0);
    // A framed request to nobody in particular is answered, once; anything else framed belongs to a negotiation.
    let framed = [&[0, HEADER_LEN as u8][..], &answer].concat();
    let pieces = [answer, [too_long, vec![0; 70_000]].concat(), odd_length, framed_too_long, framed];
    let noise = (0..20).map(|seed| [&request[..], &content::random_bytes(seed, 400)].concat());

    for bytes in pieces {
        let mut stream = connect_from(FRIEND, node.addr).await?;
        // It may be closed on us while we write.
        let _ = stream.write_all(&bytes).await;
        is_closed(&mut stream).await?;
    }
    for bytes in noise {
        let mut stream = connect_from(FRIEND, node.addr).await?;
        let _ = stream.write_all(&bytes).await;
        is_answered(&mut stream).await?;
        is_closed(&mut stream).await?;
    }

    files_are_closed_again(before).await?;
    let (port, front) = (node.port.counters(), node.front.counters());
    let closed = port.unknown.get() + front.malformed.get() + front.not_binding.get();
    ensure!(closed == 25, "{port:?} {front:?}");
    let mut stream = connect_from(FRIEND, node.addr).await?;
    stream.write_all(&request).await?;
    is_answered(&mut stream).await
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_and_make_room_meanwhile() -> Result<()> {
    /// More than the node has places for one host.
    const SILENT: usize = 200;
    let node = node().await?;
    let before = open_files()?;
    let request = bare_request();
    let mut silent = Vec::new();
    for index in 0..SILENT {
        let mut stream = connect_from(FLOOD, node.addr).await?;
        // Nothing; what could still be anything; what is STUN, and ends there; a frame with half a message in it.
        let beginning =
            [&[][..], &request[..3], &request[..12], &[&[0, 100][..], &request].concat()][index % 4].to_vec();
        let _ = stream.write_all(&beginning).await;
        silent.push(stream);
    }

    let mut friend = connect_from(FRIEND, node.addr).await?;
    friend.write_all(&request).await?;
    is_answered(&mut friend).await?;

    for stream in &mut silent {
        is_closed(stream).await?;
    }
    drop((silent, friend));
    files_are_closed_again(before).await?;
    let (port, front) = (node.port.counters(), node.front.counters());
    let counted = port.silent.get() + port.pushed_out.get() + front.silent.get() + front.pushed_out.get();
    ensure!(counted == SILENT as u64, "{counted} of {SILENT} were counted: {port:?} {front:?}");
    Ok(())
}

#[tokio::test]
async fn a_flood_of_requests_is_cut_off_and_others_are_answered() -> Result<()> {
    const CONNECTIONS: usize = 40;
    const REQUESTS: usize = 500;
    /// What one host gets at once, and what it may get besides while this runs.
    const MOST: u64 = 64 + 8 * SOON.as_secs();
    let node = node().await?;
    let before = open_files()?;
    let flood = bare_request().repeat(REQUESTS);

    for _ in 0..CONNECTIONS {
        let mut stream = connect_from(FLOOD, node.addr).await?;
        let _ = stream.write_all(&flood).await;
        let mut answers = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answers)).await?;
    }

    let counters = node.front.counters();
    let (answered, limited) = (counters.answered.get(), counters.rate_limited.get());
    ensure!((1..=MOST).contains(&answered) && limited >= CONNECTIONS as u64 - 1, "{counters:?}");
    let mut friend = connect_from(FRIEND, node.addr).await?;
    friend.write_all(&bare_request()).await?;
    is_answered(&mut friend).await?;
    drop(friend);
    files_are_closed_again(before).await
}
