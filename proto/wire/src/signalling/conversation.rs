//! A call that was answered: the signals of both sides in each stream, in order.

use super::{
    MAX_SIGNALS, SignallingError, Streams,
    body::Body,
    context::{CallContext, Direction},
};
use keyferry_ice::{Description, MAX_SIGNALLED_CANDIDATES, Signal, Stream};

use crate::identity::{NodeKey, NodeSecret};

/// A call that was answered. It signs what goes out, and verifies, orders and counts what comes in.
#[derive(Debug)]
pub struct Conversation {
    context: CallContext,
    secret: NodeSecret,
    /// The direction of what this side sends.
    direction: Direction,
    ours: Side,
    theirs: Side,
}

/// What a message of an answered call says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The caller has the answer.
    Heard,
    /// The peer's description of the relayed stream.
    Described(Box<Description>),
    /// Something for the agent of a stream.
    Signal(Stream, Signal),
    /// The peer's agent of a stream is no more: it has found a path, or given up.
    Left(Stream),
}

/// What both sides have agreed on by call and answer.
#[derive(Debug)]
pub(super) struct Agreed {
    ours: Side,
    theirs: Side,
}

/// What one side has sent.
#[derive(Debug)]
struct Side {
    /// The number of its next message.
    next: u32,
    signals: u32,
    direct: Course,
    relayed: Course,
}

/// How far one side has come in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Not both sides take part in it.
    Absent,
    /// It waits for its description.
    Undescribed,
    /// The side may signal, and has named this many candidates.
    Described { candidates: usize },
    /// The side has left it.
    Left,
}

impl Agreed {
    pub(super) fn new(ours: &Streams, theirs: &Streams) -> Self {
        let is_common = |stream| ours.has(stream) && theirs.has(stream);
        let side = |streams: &Streams| Side {
            next: 1,
            signals: 0,
            direct: match is_common(Stream::Direct) {
                true => Course::Described { candidates: streams.candidates() },
                false => Course::Absent,
            },
            relayed: if is_common(Stream::Relayed) { Course::Undescribed } else { Course::Absent },
        };
        Self { ours: side(ours), theirs: side(theirs) }
    }
}

impl Conversation {
    pub(super) fn new(context: CallContext, secret: NodeSecret, direction: Direction, agreed: Agreed) -> Self {
        let Agreed { ours, theirs } = agreed;
        Self { context, secret, direction, ours, theirs }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeKey {
        match self.direction {
            Direction::FromCaller => self.context.callee,
            Direction::FromCallee => self.context.caller,
        }
    }

    /// Whether both sides take part in a stream.
    pub fn is_about(&self, stream: Stream) -> bool {
        *self.ours.course(stream) != Course::Absent
    }

    /// The caller's first message after the answer: that it has it. Once, before everything else.
    pub fn heard(&mut self) -> Result<Vec<u8>, SignallingError> {
        self.seal(&Body::Heard)
    }

    /// This side's description of the relayed stream. Once, before all signals of that stream.
    pub fn describe(&mut self, local: Description) -> Result<Vec<u8>, SignallingError> {
        self.seal(&Body::Describe(local))
    }

    /// The next signal of this side's agent of a stream.
    ///
    /// # Errors
    /// Above the limits that the peer checks; the conversation goes on without this signal.
    pub fn send(&mut self, stream: Stream, signal: Signal) -> Result<Vec<u8>, SignallingError> {
        self.seal(&Body::Signal(stream, signal))
    }

    /// This side's agent of a stream is no more.
    pub fn leave(&mut self, stream: Stream) -> Result<Vec<u8>, SignallingError> {
        self.seal(&Body::Left(stream))
    }

    /// Reads the next message of the peer. After an error the conversation is of no more use.
    pub fn receive(&mut self, message: &[u8]) -> Result<Received, SignallingError> {
        // The caller's message number 1 is its acknowledgement, and no other is.
        let is_heard_next = self.direction == Direction::FromCallee && self.theirs.next == 1;
        let body = self.context.open(self.direction.reverse(), self.theirs.next, message)?;
        let body = Body::decode(body)?;
        self.theirs.take(&body)?;
        match body {
            Body::Heard if is_heard_next => Ok(Received::Heard),
            Body::Describe(description) if !is_heard_next => Ok(Received::Described(Box::new(description))),
            Body::Signal(stream, signal) if !is_heard_next => Ok(Received::Signal(stream, signal)),
            Body::Left(stream) if !is_heard_next => Ok(Received::Left(stream)),
            other => {
                let expected = if is_heard_next { "an acknowledgement" } else { "something of a stream" };
                Err(SignallingError::Unexpected { expected, got: other.kind() })
            }
        }
    }

    fn seal(&mut self, body: &Body) -> Result<Vec<u8>, SignallingError> {
        let number = self.ours.next;
        let bytes = body.encode()?;
        self.ours.take(body)?;
        Ok(self.context.seal(&self.secret, self.direction, number, &bytes))
    }
}

impl Side {
    fn take(&mut self, body: &Body) -> Result<(), SignallingError> {
        let got = body.kind();
        match body {
            Body::Call(_) | Body::Answer(_) | Body::Refused(_) | Body::Heard => {}
            Body::Describe(_) => self.describe(body.candidates(), got)?,
            Body::Signal(..) if self.signals >= MAX_SIGNALS => return Err(SignallingError::Signals),
            Body::Signal(stream, _) => {
                self.name(*stream, body.candidates(), got)?;
                self.signals += 1;
            }
            Body::Left(stream) => {
                let course = self.course(*stream);
                if matches!(course, Course::Absent | Course::Left) {
                    return Err(SignallingError::NotUnderWay { got, stream: *stream });
                }
                *self.course_mut(*stream) = Course::Left;
            }
        }
        self.next += 1;
        Ok(())
    }

    fn describe(&mut self, candidates: usize, got: &'static str) -> Result<(), SignallingError> {
        match self.relayed {
            Course::Undescribed => self.relayed = Course::Described { candidates },
            _ => return Err(SignallingError::NotUnderWay { got, stream: Stream::Relayed }),
        }
        Ok(())
    }

    fn name(&mut self, stream: Stream, more: usize, got: &'static str) -> Result<(), SignallingError> {
        let Course::Described { candidates } = self.course_mut(stream) else {
            return Err(SignallingError::NotUnderWay { got, stream });
        };
        let all = *candidates + more;
        if all > MAX_SIGNALLED_CANDIDATES {
            return Err(SignallingError::Candidates { got: all });
        }
        *candidates = all;
        Ok(())
    }

    fn course(&self, stream: Stream) -> &Course {
        match stream {
            Stream::Direct => &self.direct,
            Stream::Relayed => &self.relayed,
        }
    }

    fn course_mut(&mut self, stream: Stream) -> &mut Course {
        match stream {
            Stream::Direct => &mut self.direct,
            Stream::Relayed => &mut self.relayed,
        }
    }
}
