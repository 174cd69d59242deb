//! A TCP relay on loopback whose first connection has a fault: it breaks or goes silent after a given number of bytes.
//!
//! What it is not: a simulation of a network; every further connection is carried as it is.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// Longer than any test runs.
const FOR_EVER: Duration = Duration::from_secs(600);

/// What happens to the first connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends are closed.
    Close,
    /// Nothing is carried any more, and nobody is told.
    Silence,
}

/// A relay to one port of this machine. Its threads end with the test.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    accepted: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `target`; the first connection has its fault once `after_bytes` have come from there.
    pub fn start(target: u16, after_bytes: u64, fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&accepted);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let is_first = counter.fetch_add(1, Ordering::Relaxed) == 0;
                let fault = is_first.then_some((after_bytes, fault));
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).and_then(|far| carry(near, far, fault));
            }
        });
        Ok(Self { port, accepted })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn carry(near: TcpStream, far: TcpStream, fault: Option<(u64, Fault)>) -> std::io::Result<()> {
    let dead = Arc::new(AtomicU64::new(0));
    let (from_near, to_far) = (near.try_clone()?, far.try_clone()?);
    thread::spawn({
        let dead = Arc::clone(&dead);
        move || copy(from_near, to_far, None, &dead)
    });
    thread::spawn(move || copy(far, near, fault, &dead));
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, fault: Option<(u64, Fault)>, dead: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    let mut carried = 0;
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if dead.load(Ordering::Relaxed) > 0 {
            thread::sleep(FOR_EVER);
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
        carried += len as u64;
        match fault {
            Some((after_bytes, Fault::Close)) if carried >= after_bytes => break,
            Some((after_bytes, Fault::Silence)) if carried >= after_bytes => {
                dead.store(1, Ordering::Relaxed);
                thread::sleep(FOR_EVER);
            }
            _ => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
