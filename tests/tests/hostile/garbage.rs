//! What anybody on the internet may throw at an open port.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use keyferry_tests::{content, lab::Lab, process::Keyferry};

use crate::witness::still_serves;

fn sharer(lab: &Lab) -> Result<(Keyferry, String, SocketAddr)> {
    content::random_file(&lab.path("file"), 1, 500_000)?;
    let (node, status) = lab.node("sharer")?;
    let mut share = lab.start("sharer", ["share".into(), lab.path("file").into_os_string()])?;
    let shared = share.wait_shared(keyferry_tests::lab::TRANSFER)?;
    Ok((node, shared.address_with_hints.to_string(), *status.listen.first().context("a node listens")?))
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.set_write_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

#[test]
fn garbage_on_the_port_is_closed_and_forgotten() -> Result<()> {
    let lab = Lab::new()?;
    let (node, address, addr) = sharer(&lab)?;
    let mut pieces: Vec<Vec<u8>> = (0..40).map(|seed| content::random_bytes(seed, 3000)).collect();
    pieces.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    pieces.push(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec());
    pieces.push(b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff".to_vec());
    pieces.push([&[0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff][..], &[0; 70_000]].concat());
    pieces.push([&[0, 1, 0xff, 0xff, 0x21, 0x12, 0xa4, 0x42][..], &[0; 70_000]].concat());
    for bytes in pieces {
        let mut stream = connect(addr)?;
        // It may be closed on us while we write.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.take(10_000).read_to_end(&mut reply);
        ensure!(reply.len() < 10_000, "{} bytes for garbage", reply.len());
    }
    still_serves(&lab, &address, &lab.path("file"))?;
    ensure!(!node.stderr().contains("panicked"), "{}", node.stderr());
    Ok(())
}

#[test]
fn connections_that_say_nothing_do_not_fill_the_node() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, address, addr) = sharer(&lab)?;
    let mut idle = Vec::new();
    for index in 0..300 {
        let mut stream = connect(addr)?;
        // Nothing, or the beginning of each protocol.
        let _ = stream.write_all(match index % 4 {
            0 => b"",
            1 => b"\x13/multi",
            2 => b"\x16\x03",
            _ => b"\x00\x01\x00",
        });
        idle.push(stream);
    }
    still_serves(&lab, &address, &lab.path("file"))
}

#[test]
fn half_a_handshake_on_many_connections_does_not_fill_the_node() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, address, addr) = sharer(&lab)?;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(addr)?;
        // A TLS record that never comes to its end: it is decided to be TLS, and the handshake waits.
        let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0]);
        idle.push(stream);
    }
    // Handshakes have a deadline; then there is room again.
    keyferry_tests::lab::eventually(Duration::from_secs(30), || still_serves(&lab, &address, &lab.path("file")))
}
