//! Sessions: one authenticated, encrypted, multiplexed connection to one peer.
//!
//! ```text
//! byte stream (a `Path`) → proof of what is sought → TLS 1.3, raw ed25519 keys both ways, ALPN keyferry/2 → yamux → streams
//! ```
//! The dialling side opens the first stream, the control stream; every other stream carries one request.
//!
//! What it is not: how the socket came about (`path`), or what the requests mean (`transfer`).

mod control;
mod counters;
mod dial_days;
mod driver;
mod early;
mod error;
mod first_flight;
mod frame_joiner;
mod frame_merger;
mod handle;
mod key_share;
mod messages;
mod proof_verifier;
mod proven;
mod silence;
mod stream;
mod tls;

use std::sync::Arc;

use keyferry_proto::dialling::Sought;
use tokio::time::Instant;

use self::proven::ProvenPeer;
pub(crate) use self::tls::gather_entropy;
pub use self::{
    counters::{SessionCounters, SessionTraffic},
    driver::{MAX_INBOUND_STREAMS, MAX_OUTBOUND_STREAMS, RECEIVE_MEMORY},
    early::EarlyDial,
    error::{Breakage, IdentityRefused, ProtocolError, SessionEnd, SessionError},
    handle::{PeerName, Session, WeakSession},
    messages::{ReadError, StreamMessageReader, read_message, write_message},
    silence::{MAX_MISSED_PINGS, PING_INTERVAL},
    stream::{InboundStreams, SessionStream},
    tls::{ALPN, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, SessionTls},
};
use crate::net::path::{self, AddressPolicy, Admitted, Connect, Path, race};

impl Session {
    /// Dials the admitted addresses and takes the first at which the node that is sought proves itself, or whoever has the content that
    /// is. Another node at one address neither wins nor stops the others.
    pub async fn connect<C: Connect>(
        connector: &C,
        admitted: &Admitted,
        policy: &AddressPolicy,
        tls: &Arc<SessionTls>,
        sought: Sought,
    ) -> Result<(Self, InboundStreams), SessionError> {
        if admitted.addrs.is_empty() {
            return Err(SessionError::NothingToDial { refused: admitted.refused.clone() });
        }
        let started = Instant::now();
        let attempt = |remote| async move {
            let path = path::dial(connector, remote, policy, started).await;
            let path = path.map_err(|error| SessionError::Io(Arc::new(error)))?;
            ProvenPeer::dial(path, tls, sought).await
        };
        let late = || SessionError::HandshakeTimeout { limit: race::RaceLimits::default().deadline };
        let failed = |failed| SessionError::AllFailed { failed, refused: admitted.refused.clone() };
        let mut proven =
            race::race(&admitted.addrs, race::RaceLimits::default(), attempt, late).await.map_err(failed)?;
        proven.path.took = started.elapsed();
        let remote = proven.path.remote;
        proven.establish(tls).await.map_err(|error| failed(vec![(remote, error)]))
    }

    /// Makes a session over a path that this node dialled.
    pub async fn dial(
        path: Path,
        tls: &Arc<SessionTls>,
        sought: Sought,
    ) -> Result<(Self, InboundStreams), SessionError> {
        ProvenPeer::dial(path, tls, sought).await?.establish(tls).await
    }

    /// Makes a session over a connection that a peer made to this node.
    pub async fn accept(path: Path, tls: &Arc<SessionTls>) -> Result<(Self, InboundStreams), SessionError> {
        let mut place = tls.handshakes.enter(path.report.remote.ip());
        tokio::select! {
            session = async { ProvenPeer::accept(path, tls).await?.establish(tls).await } => session,
            // Whoever dawdles gives way: refusing the newest would let idle connections keep everybody out.
            _ = &mut place.pushed_out => {
                let busy = SessionError::Busy { limit: MAX_HANDSHAKES };
                tls.counters.count(&busy);
                Err(busy)
            }
        }
    }
}

#[cfg(test)]
mod tests;
