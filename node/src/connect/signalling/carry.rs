//! The task of an answered call: it takes what this side's agents say to the peer's, and back, for each stream.
//!
//! What it is not: a judgement of the signals; that is the agents'.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use keyferry_ice::{Description, Role, Signal, Stream};
use keyferry_proto::{
    identity::NodeKey,
    signalling::{Conversation, MAX_SIGNALS, Received, SignallingError, Streams},
};
use libp2p::Multiaddr;
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, mpsc::error::TrySendError, oneshot, watch},
};

use super::{Call, MAX_CALL_TIME, messages, write_message};
use crate::{
    base::places::Place,
    connect::ice::{Dialogue, RelayedDialogue},
    reach::rendezvous::{CallIo, Rendezvous},
};

/// Signals of this side that may wait for the stream.
const OUTGOING: usize = 32;
/// How long the end of a call may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An answered call, as the side that has just read or written the answer knows it.
pub(super) struct Begun {
    pub(super) stream: CallIo,
    pub(super) conversation: Conversation,
    pub(super) role: Role,
    pub(super) remote: Streams,
    pub(super) via: Multiaddr,
    /// The round trip, if this side has measured it.
    pub(super) round_trip: Option<Duration>,
}

/// What the task works with.
struct Carrier {
    reader: ReadHalf<CallIo>,
    writer: WriteHalf<CallIo>,
    conversation: Conversation,
    direct: Lane,
    relayed: Lane,
    /// Descriptions of the relayed stream that are still to come: this side's, and the peer's.
    describe: Option<oneshot::Receiver<Description>>,
    described: Option<oneshot::Sender<Description>>,
    round_trip: watch::Sender<Option<Duration>>,
    answered: Instant,
    rendezvous: Rendezvous,
}

/// The ends of the signals of one stream. `None`: that side has left it, or the call is not about it.
#[derive(Default)]
struct Lane {
    outgoing: Option<mpsc::Receiver<Signal>>,
    incoming: Option<mpsc::Sender<Signal>>,
}

impl Lane {
    fn new() -> (Self, mpsc::Sender<Signal>, mpsc::Receiver<Signal>) {
        let (to_peer, outgoing) = mpsc::channel(OUTGOING);
        // As many as a call may have, so that this side's own signals never wait behind those that nobody has taken yet.
        let (incoming, from_peer) = mpsc::channel(MAX_SIGNALS as usize);
        (Self { outgoing: Some(outgoing), incoming: Some(incoming) }, to_peer, from_peer)
    }
}

/// Starts the task. It ends with the call, or when the call loses its place, which it holds until then.
pub(super) fn carry(begun: Begun, rendezvous: Rendezvous, place: Option<Place<NodeKey>>) -> Call {
    let Begun { stream, conversation, role, remote, via, round_trip } = begun;
    let peer = conversation.peer();
    let (round_trip_sender, round_trip) = watch::channel(round_trip);
    let known = remote.direct().into_iter().flat_map(|direct| &direct.candidates);
    let known = known.map(|candidate| candidate.addr.ip()).collect();
    let (reader, writer) = tokio::io::split(stream);
    let mut carrier = Carrier {
        reader,
        writer,
        conversation,
        direct: Lane::default(),
        relayed: Lane::default(),
        describe: None,
        described: None,
        round_trip: round_trip_sender,
        answered: Instant::now(),
        rendezvous,
    };
    let direct = match remote {
        Streams::Direct(remote) | Streams::DirectAndRelayed(remote)
            if carrier.conversation.is_about(Stream::Direct) =>
        {
            let (lane, outgoing, incoming) = Lane::new();
            carrier.direct = lane;
            Some(Dialogue { remote, round_trip: round_trip.clone(), outgoing, incoming })
        }
        _ => None,
    };
    let relayed = carrier.conversation.is_about(Stream::Relayed).then(|| {
        let (lane, outgoing, incoming) = Lane::new();
        let ((describe, our_description), (their_description, remote)) = (oneshot::channel(), oneshot::channel());
        carrier.relayed = lane;
        (carrier.describe, carrier.described) = (Some(our_description), Some(their_description));
        RelayedDialogue { known, remote, describe, round_trip: round_trip.clone(), outgoing, incoming }
    });
    tokio::spawn(async move {
        carrier.run(place).await;
    });
    Call { peer, role, via, direct, relayed, round_trip }
}

impl Carrier {
    async fn run(mut self, mut place: Option<Place<NodeKey>>) {
        let pushed_out = async {
            match &mut place {
                Some(place) => drop((&mut place.pushed_out).await),
                None => pending().await,
            }
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(MAX_CALL_TIME, self.exchange()) => ended.is_ok(),
            () = pushed_out => {
                self.rendezvous.count(|counters| &counters.call_pushed_out);
                true
            }
        };
        if !ended {
            self.rendezvous.count(|counters| &counters.call_too_long);
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.writer.shutdown()).await;
    }

    /// Carries what is said until this side has left both streams, or the peer the call.
    async fn exchange(&mut self) {
        let mut frames = messages();
        while self.direct.outgoing.is_some() || self.relayed.outgoing.is_some() {
            let goes_on = tokio::select! {
                signal = next_signal(&mut self.direct.outgoing) => self.say(Stream::Direct, signal).await,
                signal = next_signal(&mut self.relayed.outgoing), if self.describe.is_none() => {
                    self.say(Stream::Relayed, signal).await
                }
                description = next_description(&mut self.describe) => {
                    self.describe = None;
                    match description {
                        Some(description) => {
                            let message = self.conversation.describe(description);
                            self.send(message).await
                        }
                        None => true,
                    }
                }
                message = frames.next(&mut self.reader) => match message {
                    Ok(Some(message)) => self.receive(&message),
                    Ok(None) => false,
                    Err(error) => {
                        tracing::debug!(%error, "a call has broken off");
                        false
                    }
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Sends a signal of a stream, or that this side has left it; false if that is not possible any more.
    async fn say(&mut self, stream: Stream, signal: Option<Signal>) -> bool {
        let message = match signal {
            Some(signal) => self.conversation.send(stream, signal),
            None => {
                *self.lane(stream) = Lane::default();
                self.conversation.leave(stream)
            }
        };
        self.send(message).await
    }

    async fn send(&mut self, message: Result<Vec<u8>, SignallingError>) -> bool {
        match message {
            Ok(message) => write_message(&mut self.writer, &message).await.is_ok(),
            Err(error) => {
                tracing::debug!(%error, "something that this side says was not sent");
                true
            }
        }
    }

    /// Takes a message; false if the peer breaks the rules.
    fn receive(&mut self, message: &[u8]) -> bool {
        match self.conversation.receive(message) {
            Ok(Received::Signal(stream, signal)) => match &self.lane(stream).incoming {
                Some(incoming) => !matches!(incoming.try_send(signal), Err(TrySendError::Full(_))),
                // This side has left the stream, which the peer does not know yet.
                None => true,
            },
            Ok(Received::Described(description)) => {
                self.described.take().map(|described| described.send(*description));
                true
            }
            Ok(Received::Left(stream)) => {
                self.lane(stream).incoming = None;
                if stream == Stream::Relayed {
                    self.described = None;
                }
                true
            }
            Ok(Received::Heard) => {
                self.round_trip.send_replace(Some(self.answered.elapsed()));
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the peer's signalling is wrong");
                self.rendezvous.count(|counters| &counters.call_bad_message);
                false
            }
        }
    }

    fn lane(&mut self, stream: Stream) -> &mut Lane {
        match stream {
            Stream::Direct => &mut self.direct,
            Stream::Relayed => &mut self.relayed,
        }
    }
}

/// The next signal of a stream in which this side takes part; `None` when its agent is no more. Cancel-safe.
async fn next_signal(outgoing: &mut Option<mpsc::Receiver<Signal>>) -> Option<Signal> {
    match outgoing {
        Some(outgoing) => outgoing.recv().await,
        None => pending().await,
    }
}

/// This side's description of the relayed stream; `None` if there will be none. Cancel-safe.
async fn next_description(describe: &mut Option<oneshot::Receiver<Description>>) -> Option<Description> {
    match describe {
        Some(describe) => describe.await.ok(),
        None => pending().await,
    }
}
