//! The task of one client connection: messages back and forth, and then, perhaps, the bytes of a peer.
//!
//! What it is not: what a message means.

use std::{io, time::Duration};

use keyferry_turn::framing::StunReader;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    link::{ClientCommand, ClientStream, Joined, Link, RelayInput},
    moving,
};

/// How long an answer may take to leave. It is shorter than any send buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to close in order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until the connection is over, and tells the actor.
pub(super) async fn run(mut stream: ClientStream, link: Link, mut commands: mpsc::Receiver<ClientCommand>) {
    match exchange(&mut stream, &link, &mut commands).await {
        Ok(Some(joined)) => {
            let closed = async {
                // Whatever comes now means that it is over.
                let _ = commands.recv().await;
            };
            moving::run(stream, joined, &link, closed).await;
        }
        Ok(None) => {
            let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
        }
        Err(error) => tracing::trace!(%error, "a client's connection broke"),
    }
    let _ = link.inputs.send(RelayInput::Closed { client: link.client }).await;
}

/// Exchanges messages; returns the peer to join the client with, or `None` if the connection has to be closed.
async fn exchange(
    stream: &mut ClientStream,
    link: &Link,
    commands: &mut mpsc::Receiver<ClientCommand>,
) -> io::Result<Option<Joined>> {
    let mut reader = StunReader::new();
    let mut buffer = [0; 512];
    loop {
        let wanted = reader.wanted().min(buffer.len());
        let read = tokio::select! {
            // Do what the actor has decided before reading on: after a Join there are no messages.
            biased;
            command = commands.recv() => match command {
                Some(ClientCommand::Send(message)) => {
                    write(stream, &message).await?;
                    continue;
                }
                Some(ClientCommand::Join(joined)) => return Ok(Some(joined)),
                Some(ClientCommand::Close) | None => return Ok(None),
            },
            read = stream.read(&mut buffer[..wanted]) => read?,
        };
        if read == 0 {
            return Ok(None);
        }
        let whole = reader.push(&buffer[..read]);
        if let Some(message) = whole.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            let (taken, is_taken) = oneshot::channel();
            let input = RelayInput::Message { client: link.client, message, taken };
            // If the actor is gone, so is the relay.
            if link.inputs.send(input).await.is_err() || is_taken.await.is_err() {
                return Ok(None);
            }
        }
    }
}

async fn write(stream: &mut ClientStream, message: &[u8]) -> io::Result<()> {
    let write = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    timeout(WRITE_TIMEOUT, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
