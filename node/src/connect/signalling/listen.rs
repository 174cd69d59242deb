//! Taking calls: who is turned away, and when.
//!
//! What it is not: what is done with a call that was answered.

use std::{sync::Arc, time::Duration};

use keyferry_ice::Role;
use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    signalling::{CallRefusal, Called, SignallingError, Streams},
};
use tokio::{io::AsyncWriteExt, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Call, CallError,
    carry::{Begun, carry},
    messages, write_message,
};
use crate::{
    base::{
        data_dir::Admission,
        places::{Place, PlaceClaim, PlaceLimits, Places},
    },
    net::port::Undecided,
    reach::rendezvous::{CallStream, Rendezvous},
};

/// Incoming calls at once, from the first message to the end. A node may try all circuits of an offer. Most calls are over within the
/// grace; they are by the relay that they come by, since behind one anybody may be.
const CALL_PLACES: PlaceLimits = PlaceLimits {
    in_all: 32,
    for_contacts: 8,
    per_host: 32,
    per_key: keyferry_proto::offer::MAX_SIGNALLING,
    grace: Duration::from_secs(15),
};
/// Incoming streams at once that have not shown a valid call. One more pushes out the oldest of the busiest relay, so that
/// silent ones keep nobody out: the first message comes with the stream.
const MAX_SILENT: usize = 64;
/// How long a caller may take to say what it wants.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller may take to hear that it is refused.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls that may wait for the node to answer them.
const RINGING: usize = 8;

/// The calls that come in.
#[derive(Debug)]
pub struct IncomingCalls {
    ringing: mpsc::Receiver<Ringing>,
    _task: AbortOnDropHandle<()>,
}

/// A call that has come in, from a caller whose key is proven and whom the policy allows to call, or from another node with this one's key.
/// Dropping it hangs up.
#[derive(Debug)]
pub struct Ringing {
    called: Called,
    stream: CallStream,
    desk: Arc<Desk>,
    place: Place<NodeKey>,
}

/// What all incoming calls share.
#[derive(Debug)]
struct Desk {
    rendezvous: Rendezvous,
    secret: NodeSecret,
    callers: Admission,
    silent: Undecided,
    calls: Places<NodeKey>,
    ringing: mpsc::Sender<Ringing>,
}

/// Takes the calls that come in to the node with this key. If several listen, the last one gets them.
pub fn listen(rendezvous: &Rendezvous, secret: NodeSecret, callers: Admission) -> IncomingCalls {
    listen_within(CALL_PLACES, rendezvous, secret, callers)
}

/// The same, with other limits.
pub(super) fn listen_within(
    limits: PlaceLimits,
    rendezvous: &Rendezvous,
    secret: NodeSecret,
    callers: Admission,
) -> IncomingCalls {
    let mut streams = rendezvous.incoming_calls();
    let (ringing, receiver) = mpsc::channel(RINGING);
    let desk = Arc::new(Desk {
        rendezvous: rendezvous.clone(),
        secret,
        callers,
        silent: Undecided::new(MAX_SILENT),
        calls: Places::new(limits),
        ringing,
    });
    let task = tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            tokio::spawn(Arc::clone(&desk).take(stream));
        }
    });
    IncomingCalls { ringing: receiver, _task: AbortOnDropHandle::new(task) }
}

impl IncomingCalls {
    /// Waits for the next call; `None` when the rendezvous has ended.
    pub async fn next(&mut self) -> Option<Ringing> {
        self.ringing.recv().await
    }
}

impl Ringing {
    /// Who calls. The key is proven.
    pub fn caller(&self) -> NodeKey {
        self.called.caller()
    }

    /// What the caller says of itself.
    pub fn remote(&self) -> &Streams {
        self.called.remote()
    }

    /// Answers the call. There must be a stream in which both sides take part.
    pub async fn answer(mut self, local: Streams) -> Result<Call, CallError> {
        let accepted = self.called.accept(&self.desk.secret, local).map_err(CallError::Own)?;
        let (remote, conversation, message) = accepted;
        write_message(&mut self.stream.io, &message).await?;
        let CallStream { io: stream, via, .. } = self.stream;
        let begun = Begun { stream, conversation, role: Role::Controlled, remote, via, round_trip: None };
        Ok(carry(begun, self.desk.rendezvous.clone(), Some(self.place)))
    }

    /// Says that the call is not wanted, and why.
    pub async fn refuse(self, why: CallRefusal) {
        self.desk.refuse(self.called, self.stream, why).await;
    }
}

impl Desk {
    /// Hears what a stream is about, and passes on a call that may be taken.
    async fn take(self: Arc<Self>, mut stream: CallStream) {
        let Some(called) = self.first_message(&mut stream).await else { return };
        let is_twin = called.caller() == self.secret.public();
        if !is_twin && !self.callers.admit(called.caller()).await {
            tracing::debug!(caller = %called.caller(), "a call was refused by the policy");
            self.rendezvous.count(|counters| &counters.call_refused_policy);
            return self.refuse(called, stream, CallRefusal::Policy).await;
        }
        let is_contact = self.callers.is_contact(called.caller()).await;
        let Ok(place) = self.calls.enter(PlaceClaim::of_key(stream.host(), called.caller(), is_contact)) else {
            self.rendezvous.count(|counters| &counters.call_refused_busy);
            return self.refuse(called, stream, CallRefusal::Busy).await;
        };
        let ringing = Ringing { called, stream, desk: Arc::clone(&self), place };
        if let Err(unheard) = self.ringing.try_send(ringing) {
            self.rendezvous.count(|counters| &counters.call_refused_busy);
            unheard.into_inner().refuse(CallRefusal::Busy).await;
        }
    }

    /// Waits for the call that a stream begins with.
    async fn first_message(&self, stream: &mut CallStream) -> Option<Called> {
        let mut place = self.silent.enter(stream.host());
        let mut frames = messages();
        let message = tokio::select! {
            message = frames.next(&mut stream.io) => message.ok().flatten(),
            () = tokio::time::sleep(FIRST_MESSAGE_TIMEOUT) => None,
            _ = &mut place.pushed_out => None,
        };
        let Some(message) = message else {
            self.rendezvous.count(|counters| &counters.call_silent);
            return None;
        };
        match Called::verify(&message, &self.secret.public(), stream.incoming_channel()) {
            Ok(called) => Some(called),
            Err(SignallingError::OtherNode) => {
                self.rendezvous.count(|counters| &counters.call_for_other_node);
                hang_up(stream, &[]).await;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a call is wrong");
                self.rendezvous.count(|counters| &counters.call_bad_message);
                None
            }
        }
    }

    async fn refuse(&self, called: Called, mut stream: CallStream, why: CallRefusal) {
        if let Ok(message) = called.refuse(&self.secret, why) {
            hang_up(&mut stream, &message).await;
        }
    }
}

/// Sends a last message, and ends the stream.
async fn hang_up(stream: &mut CallStream, message: &[u8]) {
    let last = async {
        let _ = write_message(&mut stream.io, message).await;
        let _ = stream.io.shutdown().await;
        // The circuit is closed with the stream; the caller ends it when it has read the message.
        let _ = messages().next(&mut stream.io).await;
    };
    let _ = tokio::time::timeout(HANG_UP_TIMEOUT, last).await;
}
