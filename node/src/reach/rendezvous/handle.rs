//! The handle to the rendezvous: what the rest of the node asks of it.
//!
//! What it is not: the work, which the task does ([`super::actor`]).

use std::{net::SocketAddr, sync::Arc};

use keyferry_proto::{
    offer::{RecordKey, SealedOffer},
    relaying::Reply,
};
use libp2p::{Multiaddr, PeerId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    actor::{Actor, RendezvousCommand},
    announce::{PublishError, PublishReport},
    call_stream::{CallStream, OpenCallError},
    calls::CallOver,
    config::{RendezvousConfig, RendezvousError},
    counters::WhichCounter,
    lookup::Provider,
    status::RendezvousStatus,
    turn::{self, AskAs, AskRelayError, Granted},
};
use crate::{
    base::clock,
    net::port::{Accepted, Port},
};

/// Commands that may wait for the task.
const COMMANDS: usize = 256;
/// Results of one lookup that may wait for its owner; more are dropped.
const RESULTS: usize = 32;
/// Incoming calls that may wait for who takes them; more are dropped.
const INCOMING_CALLS: usize = 32;

/// The handle to the task that takes part in the DHTs. The task ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    pub(super) commands: mpsc::Sender<RendezvousCommand>,
    interfaces_changed: mpsc::Sender<()>,
    status: watch::Receiver<RendezvousStatus>,
}

impl Rendezvous {
    /// Starts the task. `incoming` is [`crate::net::port::IncomingConnections::libp2p`] of the same port.
    pub fn spawn(
        config: RendezvousConfig,
        port: Arc<Port>,
        incoming: mpsc::Receiver<Accepted>,
    ) -> Result<(Rendezvous, JoinHandle<()>), RendezvousError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        // One word that waits stands for all.
        let (interfaces_changed, changes) = mpsc::channel(1);
        let (actor, status) = Actor::new(config, port, incoming, command_receiver, changes)?;
        let task = tokio::spawn(actor.run());
        Ok((Rendezvous { commands, interfaces_changed, status }, task))
    }

    /// Publishes an offer in both DHTs, in place of any earlier one under its key, and keeps it published until it
    /// expires. Returns when those who are there have taken it, at once if nobody is there yet.
    pub async fn publish(&self, offer: SealedOffer) -> Result<PublishReport, PublishError> {
        let (reply, answer) = oneshot::channel();
        self.send(RendezvousCommand::Publish { offer: Box::new(offer), reply }).await?;
        answer.await.map_err(|_| PublishError::Ended)?
    }

    /// Looks for the offer under a key: checked records as they arrive, each newer than the one before. The channel
    /// closes when the lookup has ended; dropping it ends the lookup.
    pub fn resolve(&self, key: RecordKey) -> mpsc::Receiver<SealedOffer> {
        let (results, receiver) = mpsc::channel(RESULTS);
        self.send_detached(RendezvousCommand::Resolve { key, results });
        receiver
    }

    /// Announces that this node holds a content, in both DHTs, and keeps it announced.
    pub async fn provide(&self, key: RecordKey) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.send(RendezvousCommand::Provide { key, reply }).await?;
        answer.await.map_err(|_| PublishError::Ended)?
    }

    /// Announces a content no longer. Others forget it when the record expires.
    pub async fn stop_providing(&self, key: RecordKey) {
        let _ = self.send(RendezvousCommand::StopProviding { key }).await;
    }

    /// Looks for the providers of a content, each once, as they are found. The channel closes when the lookup has ended;
    /// dropping it ends the lookup. Anyone can claim to be a provider.
    pub fn providers(&self, key: RecordKey) -> mpsc::Receiver<Provider> {
        let (results, receiver) = mpsc::channel(RESULTS);
        self.send_detached(RendezvousCommand::Providers { key, results });
        receiver
    }

    /// The state, as it changes.
    pub fn status(&self) -> watch::Receiver<RendezvousStatus> {
        self.status.clone()
    }

    /// Tells that addresses of this machine have come or gone, sooner than the rendezvous would see it: what hangs on those that are
    /// gone is closed, and the way into the network is looked for anew.
    pub fn interfaces_changed(&self) {
        let _ = self.interfaces_changed.try_send(());
    }

    /// Tells that connections may be dead although nobody has said so: those that this node has dialled are probed, and those that it
    /// needs are dialled again at the same time.
    pub fn doubt(&self) {
        self.send_detached(RendezvousCommand::Doubt);
    }

    /// Tells that this machine's clock has been set, or has gone on while the machine slept: peers are asked anew how far it is from theirs.
    pub fn clock_set(&self) {
        self.send_detached(RendezvousCommand::ClockSet);
    }

    /// Adds an address where the DHT can be entered, such as a `?via=` hint, and dials it.
    pub async fn add_bootstrap(&self, addr: Multiaddr) {
        let _ = self.send(RendezvousCommand::AddBootstrap { addr }).await;
    }

    /// Opens a stream for a call: over a connection with the peer that stands, or over the circuit. The circuit is closed
    /// when the stream is dropped; dropping the future gives the call up.
    pub async fn open_call(&self, circuit: &Multiaddr, over: CallOver) -> Result<CallStream, OpenCallError> {
        let (reply, answer) = oneshot::channel();
        let command = RendezvousCommand::OpenCall { circuit: circuit.clone(), over, reply };
        self.commands.send(command).await.map_err(|_| OpenCallError::Ended)?;
        answer.await.map_err(|_| OpenCallError::Closed)?
    }

    /// The streams of incoming calls, from now on. Whoever asked last gets them; without anybody, they are refused.
    pub fn incoming_calls(&self) -> mpsc::Receiver<CallStream> {
        let (calls, receiver) = mpsc::channel(INCOMING_CALLS);
        self.send_detached(RendezvousCommand::TakeCalls { calls });
        receiver
    }

    /// Asks a peer for leave to use it as a TURN relay: over a connection that stands, or over one that is made to one of its
    /// addresses.
    pub async fn ask_relay(
        &self,
        relay: PeerId,
        addrs: &[SocketAddr],
        who: AskAs<'_>,
    ) -> Result<Granted, AskRelayError> {
        let own = self.status.borrow().peer;
        let message = turn::request(&own, &relay, who)?;
        let (reply, answer) = oneshot::channel();
        let command = RendezvousCommand::AskRelay { relay, addrs: addrs.to_vec(), message, reply };
        self.commands.send(command).await.map_err(|_| AskRelayError::Ended)?;
        let answer = tokio::time::timeout(turn::ASK_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| AskRelayError::Unreachable("it does not answer".to_owned()))?;
        let turn::RelayAnswer { message, via, is_dialled } = answer.map_err(|_| AskRelayError::Ended)??;
        match Reply::parse(&message, clock::now())? {
            Reply::Issued(issued) => Ok(Granted { issued, via, is_dialled }),
            Reply::Refused(refusal) => Err(AskRelayError::Refused(refusal)),
        }
    }

    /// Adds one to a counter of the status.
    pub(crate) fn count(&self, counter: WhichCounter) {
        // A flood may leave some uncounted.
        let _ = self.commands.try_send(RendezvousCommand::Count { counter });
    }

    /// Ends the task, whoever else holds a handle, and returns when the records are on disk.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(RendezvousCommand::Shutdown { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn send(&self, command: RendezvousCommand) -> Result<(), PublishError> {
        self.commands.send(command).await.map_err(|_| PublishError::Ended)
    }

    /// Sends without making the caller wait; the command is given up with the rendezvous.
    fn send_detached(&self, command: RendezvousCommand) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }
}
