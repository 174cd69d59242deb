//! Sending one request and receiving its answer.
//!
//! What it is not: what is made of the answer; see `receive`.

use std::sync::Arc;

use keyferry_proto::message::{ContentRequest, Message, Request};
use tokio::{io::AsyncWriteExt, runtime::Handle};

use super::super::{
    FetchError, HolderError, InternalError,
    receive::{Assignment, FetchContext, ReceiveError, RequestProgress, receive},
};
use crate::net::session::{Session, Stream};

/// Sends one request, and receives its answer on a blocking thread.
pub(super) async fn run_request(
    session: Session,
    shared: Arc<FetchContext>,
    assignment: Assignment,
    report: impl Fn(RequestProgress) + Send + 'static,
) -> Result<(), ReceiveError> {
    let request = ContentRequest { root: shared.root, ranges: assignment.ranges.clone() };
    let stream = match assignment.cancel.run_until_cancelled(ask(&session, request)).await {
        Some(stream) => stream?,
        None => return Ok(()),
    };
    drop(session);
    let runtime = Handle::current();
    let received = tokio::task::spawn_blocking(move || receive(stream, runtime, &shared, &assignment, &report));
    received.await.map_err(|error| FetchError::from(InternalError::from(error)))?
}

/// Asks for content on a stream of its own.
pub(in crate::content::transfer) async fn ask(
    session: &Session,
    request: ContentRequest,
) -> Result<Stream, ReceiveError> {
    let lost = |error| HolderError::Connection(std::io::Error::other(error));
    let mut stream = session.open().await.map_err(lost)?;
    stream.write_all(&Request::Content(request).to_frame()).await.map_err(HolderError::Connection)?;
    Ok(stream)
}
