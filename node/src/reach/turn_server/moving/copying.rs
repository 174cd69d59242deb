//! Moving bytes through a buffer of this process: where one side is TLS, or the kernel has no pipe to give.
//!
//! What it is not: fast; each byte is copied twice.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::flow::{Flow, Quantum};

/// The buffer of one way. With both, and with what TLS holds, a connection has less than 64 KiB.
pub(super) const BUFFER: usize = 16 * 1024;

/// Moves bytes both ways.
pub(super) async fn both<S: AsyncRead + AsyncWrite>(client: S, peer: TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    let (client_reads, client_writes) = tokio::io::split(client);
    let (peer_reads, peer_writes) = peer.into_split();
    tokio::try_join!(one(client_reads, peer_writes, flow), one(peer_reads, client_writes, flow))?;
    Ok(())
}

/// Moves bytes one way until it ends, and passes the end on.
pub(super) async fn one(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    flow: &Flow<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut turn = Quantum::default();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        flow.admit(read).await;
        to.write_all(&buffer[..read]).await?;
        // TLS holds back what does not fill a record.
        to.flush().await?;
        flow.moved(&mut turn, read, &flow.link.traffic.copied_bytes).await;
    }
}
