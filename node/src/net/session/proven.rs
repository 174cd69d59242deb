//! From a path to a session: the TLS handshake, which proves the peer's key, and the hellos.
//!
//! What it is not: TLS itself (`tls`), or what runs once the session stands (`driver`, `control`).

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_proto::{dialling::Sought, identity::NodeKey};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader},
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsStream;

use super::{
    control::{self, ControlLinks, MAX_MEASURED},
    counters::{Metered, SessionTraffic},
    dial_days::DialDay,
    driver::{self, DriverLinks, MAX_INBOUND_STREAMS, MAX_OUTBOUND_STREAMS},
    error::{IdentityRefused, SessionEnd, SessionError},
    first_flight,
    handle::{Session, SessionState, open_stream},
    proof_verifier::ProvenSought,
    silence::PING_INTERVAL,
    stream::InboundStreams,
    tls::SessionTls,
};
use crate::{
    base::{clock, data_dir::DayShift},
    net::{
        path::{Path, PathReport, PathStream},
        twins::TwinEncounter,
    },
};

/// How much is read from the socket at once; rustls by itself asks for 4 KiB at a time.
pub(super) const READ_BUFFER: usize = 128 * 1024;

/// How long to stay on the line with a twin, which has to hear this side's proof as well.
const TWIN_PATIENCE: Duration = Duration::from_secs(2);

/// A connection in TLS.
pub(super) type Tls<T> = TlsStream<BufReader<Metered<T>>>;

/// A connection whose peer has proven its key, and over which nothing else has been said.
pub(super) struct ProvenPeer<T> {
    stream: Tls<T>,
    peer: NodeKey,
    sought: Sought,
    pub(super) path: PathReport,
    pub(super) local: Option<SocketAddr>,
    traffic: Arc<SessionTraffic>,
    mode: yamux::Mode,
    day_shift: Option<DayShift>,
}

impl ProvenPeer<PathStream> {
    /// Proves the peer of a path that this node dialled.
    pub(super) async fn dial(path: Path, tls: &SessionTls, sought: Sought) -> Result<Self, SessionError> {
        let local = path.stream.tcp().local_addr().ok();
        let traffic = Arc::new(SessionTraffic::default());
        let io = BufReader::with_capacity(READ_BUFFER, Metered::new(path.stream, traffic.clone()));
        let day = tls.days.to_dial(&sought, clock::now());
        let handshake = tls.identity.connect(io, sought, day.day);
        let proven = Self::dialled(handshake, path.report, tls, (sought, day), traffic).await?;
        Ok(Self { local, ..proven })
    }

    /// Proves the peer of a connection that it made to this node, and has it prove first that it knows what it seeks. Whoever does not
    /// is not answered, whatever it has sent.
    pub(super) async fn accept(path: Path, tls: &SessionTls) -> Result<Self, SessionError> {
        let local = path.stream.tcp().local_addr().ok();
        let traffic = Arc::new(SessionTraffic::default());
        let mut stream = path.stream;
        let handshake = async {
            let (first, shown) = first_flight::read(&mut stream).await.map_err(SessionError::of_handshake)?;
            let now = clock::now();
            // It has not left this machine for anybody else, or has come back from there.
            if shown.is_some_and(|shown| tls.identity.own_dials.has(shown.proof.nonce())) {
                return Err(IdentityRefused::Ourselves.into());
            }
            let proven = shown.and_then(|shown| tls.proofs.verify(&shown, now));
            let ProvenSought { sought, day } = proven.ok_or(SessionError::Unproven)?;
            let io = Metered::beginning_with(first, stream, traffic.clone());
            let io = BufReader::with_capacity(READ_BUFFER, io);
            let (stream, peer) = tls.identity.accept(io, sought).await.map_err(SessionError::of_handshake)?;
            Ok((stream, peer, sought, DayShift::between(now.day(), day)))
        };
        let (stream, peer, sought, shift) = in_time(handshake, &path.report, tls).await?;
        if peer == tls.node() {
            let host = path.report.remote.ip().to_canonical();
            return Err(twin(tls, TwinEncounter::DialledFrom(host)));
        }
        let day_shift = Some(shift);
        Ok(Self { stream, peer, sought, path: path.report, local, traffic, mode: yamux::Mode::Server, day_shift })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> ProvenPeer<T> {
    /// What the handshake of the dialling side has proven, if it ends in time.
    pub(super) async fn dialled(
        handshake: impl Future<Output = io::Result<(Tls<T>, NodeKey)>>,
        path: PathReport,
        tls: &SessionTls,
        (sought, day): (Sought, DialDay),
        traffic: Arc<SessionTraffic>,
    ) -> Result<Self, SessionError> {
        let handshake = async {
            handshake.await.map_err(|error| match error.kind() {
                // It has gone before it has said anything.
                _ if traffic.received() > 0 => SessionError::of_handshake(error),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => SessionError::NotThere,
                _ => SessionError::of_handshake(error),
            })
        };
        let proven = in_time(handshake, &path, tls).await;
        tls.days.dialled(&sought, day, &proven);
        let (mut stream, peer) = proven?;
        if peer == tls.node() {
            // It hangs up when it has seen who dials.
            let _ = timeout(TWIN_PATIENCE, stream.read(&mut [0; 1])).await;
            return Err(twin(tls, TwinEncounter::Dialled(path.remote)));
        }
        Ok(Self { stream, peer, sought, path, local: None, traffic, mode: yamux::Mode::Client, day_shift: None })
    }

    /// Starts the multiplexer, says hello on the control stream and makes the handles.
    ///
    /// The side that has dialled does not wait for the peer's hello: TLS has proven who is there, and its first requests go with
    /// its own hello.
    pub(super) async fn establish(self, tls: &Arc<SessionTls>) -> Result<(Session, InboundStreams), SessionError> {
        let result = match timeout(tls.handshake_timeout, self.greet(tls)).await {
            Ok(result) => result,
            Err(_) => Err(SessionError::HandshakeTimeout { limit: tls.handshake_timeout }),
        };
        result.inspect_err(|error| {
            tracing::debug!(%error, "a session could not be established");
            tls.counters.count(error);
        })
    }

    async fn greet(self, tls: &SessionTls) -> Result<(Session, InboundStreams), SessionError> {
        let (open, open_requests) = mpsc::channel(MAX_OUTBOUND_STREAMS);
        let (inbound, inbound_streams) = mpsc::channel(MAX_INBOUND_STREAMS);
        let (end, end_asked) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(None);
        let links = DriverLinks { open: open_requests, inbound, end_asked, counters: tls.counters.clone() };
        let (stream, mode) = (self.stream, self.mode);
        tokio::spawn(async move {
            let end = driver::run(stream, mode, links).await;
            tracing::info!(%end, "a session has ended");
            ended_sender.send_replace(Some(end));
        });
        let (close, close_asked) = watch::channel(None);
        let (measure, measure_asked) = mpsc::channel(MAX_MEASURED);
        let places = Arc::new(Semaphore::new(MAX_OUTBOUND_STREAMS));
        let mut inbound = InboundStreams::new(inbound_streams);
        let (doubted_sender, doubted) = watch::channel(false);
        let ping_interval = PING_INTERVAL;
        let links = ControlLinks {
            close_asked,
            measure: measure_asked,
            places: places.clone(),
            end,
            ping_interval,
            traffic: self.traffic.clone(),
            counters: tls.counters.clone(),
            doubted: doubted_sender,
            troubles: tls.troubles.clone(),
        };
        let (heard, hello) = watch::channel(None);
        match mode {
            yamux::Mode::Client => {
                let place = Arc::new(Semaphore::new(1)).acquire_owned().await.map_err(|_| gone())?;
                let mut stream = open_stream(&open, place).await.ok_or_else(gone)?;
                control::greet(&mut stream).await?;
                tokio::spawn(control::run_greeted(stream, links, heard, tls.handshake_timeout));
            }
            yamux::Mode::Server => {
                let mut stream = inbound.next().await.ok_or_else(gone)?;
                heard.send_replace(Some(control::welcome(&mut stream).await?));
                tokio::spawn(control::run(stream, links));
            }
        }
        let shared = SessionState {
            peer: self.peer,
            sought: self.sought,
            day_shift: self.day_shift,
            hello,
            path: watch::Sender::new(self.path),
            local: self.local,
            traffic: self.traffic,
            open,
            places,
            close,
            measure,
            doubted,
            ended,
        };
        Ok((Session::new(shared), inbound))
    }
}

/// Tells that the peer has proven this node's own key. It is another node: dials of this node itself are not answered here.
fn twin(tls: &SessionTls, by: TwinEncounter) -> SessionError {
    tls.twins.met(by, Instant::now(), clock::now());
    IdentityRefused::Twin.into()
}

/// What comes of a handshake, if it ends in time.
async fn in_time<P>(
    handshake: impl Future<Output = Result<P, SessionError>>,
    path: &PathReport,
    tls: &SessionTls,
) -> Result<P, SessionError> {
    let late = SessionError::HandshakeTimeout { limit: tls.handshake_timeout };
    timeout(tls.handshake_timeout, handshake).await.unwrap_or(Err(late)).inspect_err(|error| {
        tracing::debug!(%error, remote = %path.remote, "a handshake failed");
        tls.counters.count(error);
    })
}

/// The error of a connection that ended before the hellos were through.
fn gone() -> SessionError {
    SessionError::Ended(SessionEnd::ClosedByPeer { reason: None })
}
