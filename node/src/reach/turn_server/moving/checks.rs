//! The first message each way of a connection that has to begin with checks. Nothing else passes before both are there.
//!
//! They are read by their exact lengths: what follows stays in the sockets, for the kernel to move.
//!
//! What it is not: what counts as a check ([`keyferry_turn::server::is_check`]).

use std::{io, time::Duration};

use keyferry_ice::frame;
use keyferry_turn::server::is_check;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::flow::{Flow, Quantum};
use crate::net::stun::read;

/// How long both sides may take. Agents begin as soon as they are connected.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection is not joined.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotJoined {
    /// A side has sent something else, or nothing in time.
    #[error("it does not begin with checks")]
    Unchecked,
    /// It broke, or ended.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Passes on the first check of each side.
pub(super) async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut S,
    peer: &mut TcpStream,
    flow: &Flow<'_>,
) -> Result<(), NotJoined> {
    let (client_reads, client_writes) = tokio::io::split(client);
    let (peer_reads, peer_writes) = peer.split();
    let both = async {
        tokio::try_join!(one(client_reads, peer_writes, flow), one(peer_reads, client_writes, flow)).map(drop)
    };
    timeout(PATIENCE, both).await.unwrap_or(Err(NotJoined::Unchecked))
}

async fn one(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    flow: &Flow<'_>,
) -> Result<(), NotJoined> {
    let message = read::framed(&mut from).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => NotJoined::Unchecked,
        _ => NotJoined::Broken(error),
    })?;
    let framed = frame(&message).filter(|_| is_check(&message)).ok_or(NotJoined::Unchecked)?;
    flow.admit(framed.len()).await;
    to.write_all(&framed).await?;
    // TLS holds back what does not fill a record.
    to.flush().await?;
    flow.moved(&mut Quantum::default(), framed.len(), &flow.link.traffic.copied_bytes).await;
    Ok(())
}
