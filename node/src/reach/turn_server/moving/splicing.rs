//! Moving bytes within the kernel (`splice(2)`): from socket to pipe to socket, never through this process.
//!
//! A connection borrows a pipe while bytes are in it and gives it back when it is empty, so an idle connection has none. Filling an
//! empty pipe fails only if the socket is empty, and draining a full one only if the socket is full: so each "would block" comes from
//! the socket.
//!
//! What it is not: for TLS, where this process has to see the bytes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{
    copying::BUFFER,
    flow::{Flow, MAX_SLICE, Quantum},
};

/// The size of a pipe. It has a slot for each fragment of a packet rather than for each byte, so that twice a slice is needed for one;
/// and all pipes of a user together may have 64 MiB by default (`pipe-user-pages-soft`), beyond which they get two pages each.
const PIPE_SIZE: usize = 2 * MAX_SLICE;
/// A pipe that is smaller than this is worse than copying.
const LEAST_PIPE_SIZE: usize = 32 * 1024;
/// How many empty pipes to keep for the next connections.
const MAX_SPARE_PIPES: usize = 64;

/// Empty pipes, of all relays of this process.
static SPARE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Moves bytes both ways.
pub(super) async fn both(client: &TcpStream, peer: &TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    tokio::try_join!(one(client, peer, flow), one(peer, client, flow))?;
    Ok(())
}

/// Moves bytes one way until it ends, and passes the end on.
async fn one(from: &TcpStream, to: &TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    let mut turn = Quantum::default();
    loop {
        from.readable().await?;
        let moved = match Pipe::borrow() {
            Some(pipe) => through(pipe, from, to, flow).await?,
            None => through_buffer(from, to, flow).await?,
        };
        match moved {
            Moved::Spliced(bytes) => flow.moved(&mut turn, bytes, &flow.link.traffic.spliced_bytes).await,
            Moved::Copied(bytes) => flow.moved(&mut turn, bytes, &flow.link.traffic.copied_bytes).await,
            Moved::Nothing => {}
            Moved::End => return end(to),
        }
    }
}

enum Moved {
    Spliced(usize),
    Copied(usize),
    /// The socket had nothing after all.
    Nothing,
    End,
}

/// Moves one slice through a pipe.
async fn through(pipe: Pipe, from: &TcpStream, to: &TcpStream, flow: &Flow<'_>) -> io::Result<Moved> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let fill = || Ok(splice(from.as_fd(), None, pipe.writes.as_fd(), None, MAX_SLICE, flags)?);
    let filled = match from.try_io(Interest::READABLE, fill) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        filled => Some(filled?),
    };
    if let Some(filled) = filled {
        flow.admit(filled).await;
        let mut left = filled;
        while left > 0 {
            let drain = || Ok(splice(pipe.reads.as_fd(), None, to.as_fd(), None, left, flags)?);
            left -= to.async_io(Interest::WRITABLE, drain).await?;
        }
    }
    pipe.give_back();
    Ok(match filled {
        None => Moved::Nothing,
        Some(0) => Moved::End,
        Some(filled) => Moved::Spliced(filled),
    })
}

/// Moves one buffer, where there are no pipes.
async fn through_buffer(from: &TcpStream, to: &TcpStream, flow: &Flow<'_>) -> io::Result<Moved> {
    let mut buffer = vec![0; BUFFER];
    let read = match from.try_read(&mut buffer) {
        Ok(0) => return Ok(Moved::End),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::Nothing),
        Err(error) => return Err(error),
    };
    flow.admit(read).await;
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Moved::Copied(read))
}

/// Passes on the end of one way.
fn end(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // It has ended already, and the other way will tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Both ends of a pipe. Dropping it closes it, with what is in it.
struct Pipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

impl Pipe {
    /// An empty pipe; `None` if the system gives none, or only one that is too small.
    fn borrow() -> Option<Self> {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.or_else(|| Self::new().inspect_err(|error| tracing::debug!(%error, "no pipe")).ok())
    }

    fn new() -> io::Result<Self> {
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_setpipe_size(&writes, PIPE_SIZE).or_else(|_| fcntl_getpipe_size(&writes))?;
        match size {
            size if size < LEAST_PIPE_SIZE => Err(io::Error::other("this user has too many pipes")),
            _ => Ok(Self { reads, writes }),
        }
    }

    /// Gives it back, empty.
    fn give_back(self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MAX_SPARE_PIPES {
            spare.push(self);
        }
    }
}
