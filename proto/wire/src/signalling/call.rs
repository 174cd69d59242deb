//! The beginning of a call: the first message, and what answers it.

use super::{
    CallChannel, CallId, CallRefusal, Conversation, MAX_MESSAGE_LEN, SignallingError, Streams,
    body::Body,
    context::{CallContext, Direction, ID_LEN, KEY_LEN},
    conversation::Agreed,
};
use crate::identity::{NodeKey, NodeSecret};

/// A call that was made, and waits for its answer.
#[derive(Debug)]
pub struct Calling {
    context: CallContext,
    secret: NodeSecret,
    local: Streams,
}

/// What became of a call.
#[derive(Debug)]
pub enum Answered {
    /// The callee has said in which streams it takes part, and both sides take part in at least one.
    Accepted(Box<(Streams, Conversation)>),
    /// The callee does not want this call.
    Refused(CallRefusal),
    /// Whoever was reached is not the node that was called.
    NotThisNode,
}

/// A call that has come in, verified, and waits to be answered.
#[derive(Debug)]
pub struct Called {
    context: CallContext,
    remote: Streams,
}

impl Calling {
    /// Makes a call to `callee` over `channel`: its state, and the first message. `id` is fresh and random. The callee may be another node
    /// with the caller's own key, which refuses the call: so both have proven to each other that they are two.
    pub fn new(
        secret: &NodeSecret,
        callee: NodeKey,
        channel: CallChannel,
        id: CallId,
        local: Streams,
    ) -> Result<(Self, Vec<u8>), SignallingError> {
        let context = CallContext { id, caller: secret.public(), callee, channel };
        let body = Body::Call(local.clone()).encode()?;
        let sealed = context.seal(secret, Direction::FromCaller, 0, &body);
        let message = [&id.0[..], context.caller.as_bytes(), callee.as_bytes(), &sealed].concat();
        Ok((Self { context, secret: secret.clone(), local }, message))
    }

    /// Reads the callee's first message.
    pub fn on_answer(self, message: &[u8]) -> Result<Answered, SignallingError> {
        if message.is_empty() {
            return Ok(Answered::NotThisNode);
        }
        let body = self.context.open(Direction::FromCallee, 0, message)?;
        match Body::decode(body)? {
            Body::Answer(_) if self.context.is_of_one_key() => {
                Err(SignallingError::Unexpected { expected: "a refusal", got: "an answer to the callee's own key" })
            }
            Body::Answer(remote) if !self.local.meet(&remote) => Err(SignallingError::NoCommonStream),
            Body::Answer(remote) => {
                let agreed = Agreed::new(&self.local, &remote);
                let conversation = Conversation::new(self.context, self.secret, Direction::FromCaller, agreed);
                Ok(Answered::Accepted(Box::new((remote, conversation))))
            }
            Body::Refused(refusal) => Ok(Answered::Refused(refusal)),
            other => Err(SignallingError::Unexpected { expected: "an answer or a refusal", got: other.kind() }),
        }
    }
}

impl Called {
    /// Reads the first message of a call to `node` that has come in over `channel`.
    ///
    /// # Errors
    /// [`SignallingError::OtherNode`] if it is for somebody else: the answer to that is an empty message.
    pub fn verify(message: &[u8], node: &NodeKey, channel: CallChannel) -> Result<Self, SignallingError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(SignallingError::TooLong { got: message.len() });
        }
        let too_short = SignallingError::TooShort { got: message.len() };
        let (id, rest) = message.split_first_chunk::<ID_LEN>().ok_or(too_short.clone())?;
        let (caller, rest) = rest.split_first_chunk::<KEY_LEN>().ok_or(too_short.clone())?;
        let (callee, sealed) = rest.split_first_chunk::<KEY_LEN>().ok_or(too_short)?;
        if callee != node.as_bytes() {
            return Err(SignallingError::OtherNode);
        }
        let caller = NodeKey::from_bytes(caller).map_err(|_| SignallingError::CallerKey)?;
        let context = CallContext { id: CallId(*id), caller, callee: *node, channel };
        match Body::decode(context.open(Direction::FromCaller, 0, sealed)?)? {
            Body::Call(remote) => Ok(Self { context, remote }),
            other => Err(SignallingError::Unexpected { expected: "a call", got: other.kind() }),
        }
    }

    /// Who calls. If that is the key of the node which was called, another node with that key calls: the answer to it is a refusal.
    pub fn caller(&self) -> NodeKey {
        self.context.caller
    }

    /// Which call it is.
    pub fn id(&self) -> CallId {
        self.context.id
    }

    /// What the caller says of itself.
    pub fn remote(&self) -> &Streams {
        &self.remote
    }

    /// Answers the call; returns the message to send.
    ///
    /// # Errors
    /// [`SignallingError::NoCommonStream`] if there is no stream in which both sides take part; see
    /// [`CallRefusal::NoCommonStream`]. [`SignallingError::CallerKey`] if caller and callee have one key.
    ///
    /// # Panics
    /// If `secret` is not that of the node for which the call was verified.
    pub fn accept(
        self,
        secret: &NodeSecret,
        local: Streams,
    ) -> Result<(Streams, Conversation, Vec<u8>), SignallingError> {
        if self.context.is_of_one_key() {
            return Err(SignallingError::CallerKey);
        }
        if !local.meet(&self.remote) {
            return Err(SignallingError::NoCommonStream);
        }
        let agreed = Agreed::new(&local, &self.remote);
        let message = self.reply(secret, &Body::Answer(local))?;
        let conversation = Conversation::new(self.context, secret.clone(), Direction::FromCallee, agreed);
        Ok((self.remote, conversation, message))
    }

    /// Refuses the call; returns the message to send.
    ///
    /// # Panics
    /// If `secret` is not that of the node for which the call was verified.
    pub fn refuse(self, secret: &NodeSecret, refusal: CallRefusal) -> Result<Vec<u8>, SignallingError> {
        self.reply(secret, &Body::Refused(refusal))
    }

    pub(super) fn reply(&self, secret: &NodeSecret, body: &Body) -> Result<Vec<u8>, SignallingError> {
        assert_eq!(secret.public(), self.context.callee, "a call is answered by the node that was called");
        Ok(self.context.seal(secret, Direction::FromCallee, 0, &body.encode()?))
    }
}
