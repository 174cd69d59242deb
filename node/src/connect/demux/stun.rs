//! What comes in at the port's queue for STUN, and who gets it.
//!
//! | first message                                             | goes to                                           |
//! |-----------------------------------------------------------|---------------------------------------------------|
//! | framed: an ICE check whose USERNAME names a negotiation   | that negotiation, with the message                |
//! | framed: a Binding request without USERNAME                | the responder, once; then whoever it is for       |
//! | plain: a Binding request                                  | the responder, until it has had enough            |
//! | plain: a TURN request, also after Binding requests        | the relay, if this node is one                    |
//! | anything else                                             | nobody: closed, and counted                       |
//!
//! Each connection has a task of its own, and a place: where there are too many, the busiest host's oldest gives way.
//!
//! What it is not: the first look at a connection, which the port has done without reading a byte.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keyferry_turn::binding::{BindingReply, reply};
use stun_types::{
    attribute::{AttributeStaticType, Username},
    message::{BINDING, Message, MessageClass},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    base::{
        counters::counters,
        rate_limit::{HostLimiter, Rate},
        traffic::{ByteCount, Traffic, TrafficPurpose},
    },
    connect::ice::{IceHost, Inbound, Unclaimed},
    net::{
        port::{Accepted, Port, Readmission, Undecided},
        stun::read::{self, First},
    },
    reach::turn_server::Entrance,
};

/// How long a connection may take to show its first message.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may be here at once: those that show their first message, and those that hold a mapping.
const MAX_CONNECTIONS: usize = 512;
/// How long to keep a connection open after a request. Clients hold a mapping by asking again before that.
pub const MAX_IDLE: Duration = Duration::from_secs(150);
/// How long to keep a connection open in all.
const MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);
/// Requests that are answered on one connection.
const MAX_REQUESTS: usize = 1000;
/// Answers that one host gets: eight in a second.
const HOST_RATE: Rate = Rate { burst: 64, interval: Duration::from_millis(125) };
/// Answers that all hosts get together: two thousand in a second.
const RATE: Rate = Rate { burst: 2048, interval: Duration::from_micros(500) };

/// How long an answer may take to leave. It is shorter than any send buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes connections from the port's queue. Dropping it closes those that it still has.
#[derive(Debug)]
pub struct Front {
    counters: Arc<StunCounters>,
    task: AbortHandle,
}

counters! {
    /// What has become of the connections for STUN.
    pub struct StunCounters {
        /// Handed to a negotiation.
        pub ice_checks = "stun_ice_checks",
        /// Handed to the relay.
        pub relay = "stun_turn",
        /// Given back to the port after a framed Binding request was answered.
        pub introduced = "stun_introduced",
        /// Binding requests answered.
        pub answered = "stun_answered",
        /// Closed: no negotiation has the username fragment.
        pub ice_unknown = "stun_closed_unknown_negotiation",
        /// Closed: the negotiation has enough connections.
        pub ice_full = "stun_closed_negotiation_full",
        /// Closed: the message is for a relay, and this node is not one.
        pub not_binding = "stun_closed_not_binding",
        /// Closed: the message makes no sense.
        pub malformed = "stun_closed_malformed",
        /// Closed: they showed no message in time.
        pub silent = "stun_closed_silent",
        /// Closed: their host asks too much.
        pub rate_limited = "stun_closed_rate_limited",
        /// Closed: they gave way to others.
        pub pushed_out = "stun_closed_too_many",
        /// Closed: they have had their requests, or their time.
        pub used_up = "stun_closed_used_up",
    }
}

/// What the tasks of all connections share.
#[derive(Debug)]
struct DemuxState {
    ice: Arc<IceHost>,
    answers: bool,
    relay: Option<Entrance>,
    readmission: Readmission,
    answers_left: Mutex<HostLimiter>,
    counters: Arc<StunCounters>,
    traffic: Traffic,
}

impl Front {
    /// Takes the connections of `accepted`, which came in at `port`. ICE checks go to `ice`, TURN goes to `relay`, and `answers` says
    /// whether to answer Binding requests.
    pub fn spawn(
        accepted: mpsc::Receiver<Accepted>,
        ice: Arc<IceHost>,
        answers: bool,
        relay: Option<Entrance>,
        port: &Port,
    ) -> Self {
        let counters = Arc::new(StunCounters::default());
        let answers_left = Mutex::new(HostLimiter::new(HOST_RATE, RATE));
        let (readmission, traffic) = (port.readmission(), port.traffic().clone());
        let shared = DemuxState { ice, answers, relay, readmission, answers_left, counters: counters.clone(), traffic };
        let task = tokio::spawn(serve(accepted, Arc::new(shared))).abort_handle();
        Self { counters, task }
    }

    /// What has come in.
    pub fn counters(&self) -> &StunCounters {
        &self.counters
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut accepted: mpsc::Receiver<Accepted>, shared: Arc<DemuxState>) {
    let places = Undecided::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    while let Some(accepted) = accepted.recv().await {
        while connections.try_join_next().is_some() {}
        let mut place = places.enter(accepted.remote.ip());
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            tokio::select! {
                end = connection(accepted, &shared) => shared.counters.count(end),
                _ = &mut place.pushed_out => shared.counters.count(ConnectionEnd::PushedOut),
            }
        });
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionEnd {
    HandedOver,
    Introduced,
    Relay,
    UnknownNegotiation,
    NegotiationFull,
    NotBinding,
    Malformed,
    Silent,
    RateLimited,
    PushedOut,
    UsedUp,
    /// The other side has closed it, as it should.
    Closed,
}

async fn connection(accepted: Accepted, shared: &DemuxState) -> ConnectionEnd {
    let Accepted { mut stream, remote, local } = accepted;
    match timeout(FIRST_MESSAGE_TIMEOUT, read::first(&mut stream)).await {
        Ok(Ok(First::Framed(check))) if shared.answers && names_nobody(&check) => {
            introduce(Accepted { stream, remote, local }, &check, shared).await
        }
        Ok(Ok(First::Framed(first_check))) => {
            match shared.ice.hand_over(Inbound { stream: stream.into(), remote, local, first_check }) {
                Ok(()) => ConnectionEnd::HandedOver,
                Err(Unclaimed::Malformed) => ConnectionEnd::Malformed,
                Err(Unclaimed::UnknownNegotiation) => ConnectionEnd::UnknownNegotiation,
                Err(Unclaimed::Full) => ConnectionEnd::NegotiationFull,
            }
        }
        Ok(Ok(First::Plain(message))) => match shared.answers {
            true => respond(stream, (remote, local), message, shared).await,
            false => hand_over(stream, (remote, local), message, shared),
        },
        Ok(Err(_)) => ConnectionEnd::Malformed,
        Err(_) => ConnectionEnd::Silent,
    }
}

/// Answers requests until the other side closes the connection, or has had its share.
async fn respond(
    mut stream: TcpStream,
    (remote, local): (SocketAddr, SocketAddr),
    first: Vec<u8>,
    shared: &DemuxState,
) -> ConnectionEnd {
    let too_old = Instant::now() + MAX_AGE;
    let mut message = first;
    for _ in 0..MAX_REQUESTS {
        let reply = reply(&message, remote);
        // The relay has limits of its own, which are not those of strangers.
        if reply != BindingReply::NotBinding && !shared.may_answer(remote.ip()) {
            return ConnectionEnd::RateLimited;
        }
        match reply {
            BindingReply::Answer(answer) => {
                if !matches!(timeout(WRITE_TIMEOUT, stream.write_all(&answer)).await, Ok(Ok(()))) {
                    return ConnectionEnd::Closed;
                }
                shared.counters.answered.add_one();
                shared.traffic.count(TrafficPurpose::Stun, ByteCount::received(message.len()));
                shared.traffic.count(TrafficPurpose::Stun, ByteCount::sent(answer.len()));
            }
            BindingReply::Nothing => {}
            BindingReply::NotBinding => return hand_over(stream, (remote, local), message, shared),
            BindingReply::Malformed => return ConnectionEnd::Malformed,
        }
        let deadline = too_old.min(Instant::now() + MAX_IDLE);
        message = match timeout_at(deadline, read::plain(&mut stream)).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return ConnectionEnd::Malformed,
            Ok(Err(_)) => return ConnectionEnd::Closed,
            Err(_) => return ConnectionEnd::UsedUp,
        };
    }
    ConnectionEnd::UsedUp
}

/// Whether a framed message is a Binding request to nobody in particular: that of a dialler behind a relay, which lets nothing through that
/// does not begin like a check.
fn names_nobody(check: &[u8]) -> bool {
    Message::from_bytes(check).is_ok_and(|message| {
        message.has_class(MessageClass::Request)
            && message.has_method(BINDING)
            && !message.has_attribute(Username::TYPE)
    })
}

/// Answers it, and gives the connection back to the port for what follows.
async fn introduce(mut accepted: Accepted, check: &[u8], shared: &DemuxState) -> ConnectionEnd {
    let BindingReply::Answer(answer) = reply(check, accepted.remote) else { return ConnectionEnd::Malformed };
    if !shared.may_answer(accepted.remote.ip()) {
        return ConnectionEnd::RateLimited;
    }
    let Some(framed) = keyferry_ice::frame(&answer) else { return ConnectionEnd::Malformed };
    if !matches!(timeout(WRITE_TIMEOUT, accepted.stream.write_all(&framed)).await, Ok(Ok(()))) {
        return ConnectionEnd::Closed;
    }
    shared.readmission.readmit(accepted);
    ConnectionEnd::Introduced
}

/// Gives a connection to the relay, with the message that is not a Binding request.
fn hand_over(
    stream: TcpStream,
    (remote, local): (SocketAddr, SocketAddr),
    message: Vec<u8>,
    shared: &DemuxState,
) -> ConnectionEnd {
    match &shared.relay {
        Some(relay) => {
            relay.plain(stream, remote, local, message);
            ConnectionEnd::Relay
        }
        None => ConnectionEnd::NotBinding,
    }
}

impl DemuxState {
    /// Takes one answer for a host; false if it has had enough, or all have.
    fn may_answer(&self, host: IpAddr) -> bool {
        self.answers_left.lock().unwrap_or_else(PoisonError::into_inner).take(host, Instant::now().into_std())
    }
}

impl StunCounters {
    fn count(&self, end: ConnectionEnd) {
        tracing::trace!(?end, "a connection for STUN is done with");
        let counter = match end {
            ConnectionEnd::HandedOver => &self.ice_checks,
            ConnectionEnd::Introduced => &self.introduced,
            ConnectionEnd::Relay => &self.relay,
            ConnectionEnd::UnknownNegotiation => &self.ice_unknown,
            ConnectionEnd::NegotiationFull => &self.ice_full,
            ConnectionEnd::NotBinding => &self.not_binding,
            ConnectionEnd::Malformed => &self.malformed,
            ConnectionEnd::Silent => &self.silent,
            ConnectionEnd::RateLimited => &self.rate_limited,
            ConnectionEnd::PushedOut => &self.pushed_out,
            ConnectionEnd::UsedUp => &self.used_up,
            ConnectionEnd::Closed => return,
        };
        counter.add_one();
    }
}

#[cfg(test)]
mod tests;
