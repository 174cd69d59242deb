//! Why an answer ends before its end.

use std::time::Duration;

use keyferry_proto::transfer::layout::LayoutError;

use crate::{
    base::places::PlacesFull,
    content::store::{BlobError, StoreError},
    net::session::ReadError,
};

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The peer's fault.
    #[error("the peer's request is malformed: {0}")]
    BadRequest(ReadError),
    /// The peer's fault.
    #[error("the peer opened a stream and did not say what for within {within:?}")]
    NoRequest {
        /// How long it had.
        within: Duration,
    },
    /// The peer's fault.
    #[error("the peer opened a second control stream")]
    SecondControl,
    /// The peer's fault.
    #[error("the peer asked for something else than the session is for")]
    NotSought,
    /// The peer's fault.
    #[error("the peer went on after its request")]
    WentOn,
    /// Nobody's fault.
    #[error("this node is busy")]
    Busy(#[from] PlacesFull),
    /// Nobody's fault.
    #[error("another answer has got the place")]
    PushedOut,
    /// This side's fault: the store holds something that has no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// This side's will.
    #[error("the content is not offered to the peer any more")]
    Withdrawn,
    /// The connection's or the peer's fault.
    #[error("the answer could not be sent: {0}")]
    Send(#[from] std::io::Error),
    /// The peer went away, or takes no bytes.
    #[error("the peer stopped reading")]
    Gone,
    /// This side's fault: the source is not what was shared.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// This side's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}
