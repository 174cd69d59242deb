//! Moving the bytes of a joined connection, both ways, until both are done.
//!
//! Each way reads a bounded number of bytes, waits for its turn where rates are limited, writes them, and lets others go on. The end
//! of one way is passed on as an end of that way alone.
//!
//! What it is not: a look at the bytes, but for the first message each way of clients whom the operator does not know (`checks`).

mod checks;
mod copying;
mod flow;
#[cfg(target_os = "linux")]
mod splicing;

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use self::{checks::NotJoined, flow::Flow};
use super::link::{ClientStream, Joined, Link, RelayInput};

/// A side that has vanished is found by TCP: after a minute of silence it is asked every ten seconds, six times.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMES: u32 = 6;

/// Moves bytes until both sides have ended, one breaks, nothing comes for too long, or it is closed.
pub(super) async fn run(mut client: ClientStream, joined: Joined, link: &Link, closed: impl Future<Output = ()>) {
    let Joined { mut peer, share, holder, checks_first } = joined;
    keep_alive(&peer);
    let flow = Flow::new(share, holder, link);
    let moving = async {
        if checks_first {
            checks::pass(&mut client, &mut peer, &flow).await?;
        }
        match client {
            Either::Left(client) => {
                keep_alive(&client);
                both_plain(client, peer, &flow).await?;
            }
            Either::Right(client) => {
                keep_alive(client.get_ref().0);
                copying::both(client, peer, &flow).await?;
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = moving => match ended {
            Ok(()) => {}
            Err(NotJoined::Unchecked) => drop(link.inputs.send(RelayInput::Unchecked { client: link.client }).await),
            Err(NotJoined::Broken(error)) => tracing::trace!(%error, "a relayed connection broke"),
        },
        () = closed => {}
        () = flow.idle() => tracing::debug!("a relayed connection has been idle for too long"),
    }
    flow.tell_rest().await;
}

#[cfg(target_os = "linux")]
async fn both_plain(client: TcpStream, peer: TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    splicing::both(&client, &peer, flow).await
}

#[cfg(not(target_os = "linux"))]
async fn both_plain(client: TcpStream, peer: TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    copying::both(client, peer, flow).await
}

fn keep_alive(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TIMES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a side that vanishes will be found late");
    }
}
