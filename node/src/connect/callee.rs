//! Answering the calls of nodes that cannot connect to this one: ICE, then a session on the path that was found, which is
//! served like any other.
//!
//! What it is not: the decision about whose calls to take (`crate::connect::signalling`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use keyferry_ice::{Role, Stream};
use keyferry_proto::signalling::{CallRefusal, Streams};
use tokio::time::timeout;

use super::streams::{self, PathSearch, PeerEnd, StreamSettings};
use crate::{
    base::clock,
    connect::{
        acceptor::SessionHost,
        call_arbiter::Turns,
        ice::{IceHost, Negotiation, RelayedNegotiation, TooManyNegotiations},
        signalling::{IncomingCalls, Ringing},
    },
    net::{path::AddressPolicy, port::Port, session::SessionTls, twins::TwinEncounter},
};

/// How long a call may ring while this node's own call to the caller goes on.
const TURN_PATIENCE: Duration = Duration::from_secs(9);

/// The task that answers calls.
#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) port: Arc<Port>,
    pub(crate) ice: Arc<IceHost>,
    pub(crate) tls: Arc<SessionTls>,
    pub(crate) turns: Turns,
    pub(crate) host: SessionHost,
    pub(crate) streams: StreamSettings,
}

impl Callee {
    /// Answers calls until the node stops.
    pub(crate) async fn run(self, mut incoming: IncomingCalls) {
        while let Some(Some(ringing)) = self.host.cancel.run_until_cancelled(incoming.next()).await {
            let callee = self.clone();
            self.host.tasks.spawn(async move {
                callee.host.cancel.run_until_cancelled(callee.answer(ringing)).await;
            });
        }
    }

    async fn answer(&self, ringing: Ringing) {
        let caller = ringing.caller();
        if caller == self.tls.node() {
            self.tls.twins().met(TwinEncounter::Called, Instant::now(), clock::now());
            return ringing.refuse(CallRefusal::Policy).await;
        }
        let meanwhile = self.host.sessions.arrival(caller);
        let Ok(turn) = timeout(TURN_PATIENCE, self.turns.to_answer(caller)).await else { return };
        if meanwhile.now_or_never().is_some_and(|session| !session.path().kind.is_relayed()) {
            tracing::debug!("the caller was reached by this node's own call meanwhile");
            return;
        }
        tokio::select! {
            () = self.negotiate(ringing) => {}
            () = turn.superseded.cancelled() => {}
        }
    }

    /// Takes in the session of each stream that leads to one: the caller decides which of them it uses. When there is
    /// a direct one, it does not wait for a relayed one.
    async fn negotiate(&self, ringing: Ringing) {
        let caller = ringing.caller();
        let Some(mut search) = self.accept(ringing).await else { return };
        while let Some(outcome) = search.next().await {
            match outcome.result {
                Ok((session, inbound)) => {
                    self.host.keep_for_peer(session, inbound);
                    if outcome.stream == Stream::Direct && !search.makes_relayed_session() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(stream = %outcome.stream, %error, %caller, "a call led to no session");
                }
            }
        }
    }

    /// Answers a call, if there is a stream in which both sides take part.
    async fn accept(&self, ringing: Ringing) -> Option<PathSearch> {
        let caller = ringing.caller();
        let debug = |error: &dyn std::fmt::Display| tracing::debug!(%error, "a call is not answered");
        let policy = AddressPolicy::for_listeners(self.port.local_addrs()).inspect_err(|error| debug(error)).ok()?;
        let (direct, relayed) = match self.begin(ringing.remote()) {
            Ok(begun) => begun,
            Err(error) => {
                debug(&error);
                ringing.refuse(CallRefusal::Busy).await;
                return None;
            }
        };
        let Some(told) = streams::streams(direct.as_ref(), relayed.as_ref()) else {
            debug(&"one side uses nothing but relays, and the other none");
            ringing.refuse(CallRefusal::NoCommonStream).await;
            return None;
        };
        if direct.is_some() {
            self.host.sessions.break_off_punched(&caller);
        }
        let call = ringing.answer(told).await.inspect_err(|error| debug(error)).ok()?;
        let peer = PeerEnd::Caller(caller);
        Some(PathSearch::new((direct, relayed), call, &policy, peer, &self.tls, self.streams.mode))
    }

    /// Begins the streams in which both sides take part.
    fn begin(
        &self,
        remote: &Streams,
    ) -> Result<(Option<Negotiation>, Option<RelayedNegotiation>), TooManyNegotiations> {
        // Relays are asked at once, since their answers take longest.
        let relayed = match remote.has(Stream::Relayed) {
            true => self.streams.begin_relayed(&self.ice, Role::Controlled)?,
            false => None,
        };
        let direct = match remote.has(Stream::Direct) {
            true => self.streams.begin_direct(&self.ice, Role::Controlled)?,
            false => None,
        };
        Ok((direct, relayed))
    }
}
