//! Making a call.

use std::time::Instant;

use keyferry_ice::Role;
use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    signalling::{Answered, CallId, Calling, Streams},
};
use libp2p::{Multiaddr, multiaddr::Protocol};

use super::{
    CALL_TIMEOUT, Call, CallError,
    carry::{Begun, carry},
    messages, write_message,
};
use crate::reach::rendezvous::{CallOver, CallStream, Rendezvous};

/// A line to a node, on which nothing has been said yet. Dropping it hangs up.
#[derive(Debug)]
pub struct FreeLine {
    opened: CallStream,
    rendezvous: Rendezvous,
}

impl FreeLine {
    /// Opens a line to the rendezvous peer at the end of a circuit. If that peer is connected directly, that connection is
    /// used, unless the call is to go over the circuit.
    pub async fn open(rendezvous: &Rendezvous, circuit: &Multiaddr, over: CallOver) -> Result<Self, CallError> {
        let opened = tokio::time::timeout(CALL_TIMEOUT, rendezvous.open_call(circuit, over)).await;
        let opened = opened.map_err(|_| CallError::TimedOut)??;
        Ok(Self { opened, rendezvous: rendezvous.clone() })
    }

    /// Whether the line goes over a circuit rather than a connection that was there before.
    pub fn is_circuit(&self) -> bool {
        self.opened.via.iter().any(|part| part == Protocol::P2pCircuit)
    }

    /// Calls the node, and waits for its answer.
    pub async fn call(self, callee: NodeKey, secret: &NodeSecret, local: Streams) -> Result<Call, CallError> {
        let Self { opened, rendezvous } = self;
        let begun = begin(opened, callee, secret, local);
        let begun = tokio::time::timeout(CALL_TIMEOUT, begun).await.unwrap_or(Err(CallError::TimedOut))?;
        Ok(carry(begun, rendezvous, None))
    }
}

/// Calls a node at one of the circuits of its offer, and waits for its answer.
pub async fn call(
    rendezvous: &Rendezvous,
    circuit: &Multiaddr,
    callee: NodeKey,
    secret: &NodeSecret,
    local: Streams,
) -> Result<Call, CallError> {
    FreeLine::open(rendezvous, circuit, CallOver::Any).await?.call(callee, secret, local).await
}

/// Makes the call on a stream that is open.
pub(super) async fn begin(
    opened: CallStream,
    callee: NodeKey,
    secret: &NodeSecret,
    local: Streams,
) -> Result<Begun, CallError> {
    let channel = opened.outgoing_channel();
    let CallStream { io: mut stream, via, .. } = opened;
    let id = CallId(rand::random());
    let (calling, message) = Calling::new(secret, callee, channel, id, local).map_err(CallError::Own)?;
    let began = Instant::now();
    write_message(&mut stream, &message).await?;
    let answer = messages().next(&mut stream).await?.ok_or(CallError::Ended)?;
    let round_trip = began.elapsed();
    match calling.on_answer(&answer).map_err(CallError::Peer)? {
        Answered::Accepted(accepted) => {
            let (remote, mut conversation) = *accepted;
            write_message(&mut stream, &conversation.heard().map_err(CallError::Own)?).await?;
            let role = Role::Controlling;
            Ok(Begun { stream, conversation, role, remote, via, round_trip: Some(round_trip) })
        }
        Answered::Refused(refusal) => Err(CallError::Refused(refusal)),
        Answered::NotThisNode => Err(CallError::NotThisNode),
    }
}
