//! What is told while an operation of a node runs, and how it becomes a stream.
//!
//! What it is not: the events of the control socket (`api`), from which it is made.

use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, PollNext},
};
use tokio::sync::mpsc;

use super::{
    Error,
    api::{Event, PathInfo, Waiting},
    events::Events,
    runner::EVENT_QUEUE,
};

/// What is told while an operation runs. The last one is [`Update::Done`], unless the stream ends with an error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update<T> {
    /// What the node is doing, in words, before bytes flow.
    Stage(String),
    /// Something worth a line that is not the result, such as a file that was left out.
    Notice(String),
    /// A connection was made, or more is known of one: which path it took, and why.
    Connected(PathInfo),
    /// How far it has come.
    Progress(Progress),
    /// Nobody is there to fetch from, and it waits: told when that begins, and after each try that led to nobody.
    Waiting(Waiting),
    /// The result.
    Done(T),
}

/// How far an operation has come. Of a fetch, all numbers count verified content only, that of earlier runs included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes in all; 0 until known.
    pub total_bytes: u64,
    /// Files that are complete.
    pub done_files: u64,
    /// Files in all; 0 until known.
    pub total_files: u64,
}

/// Runs an operation as a stream: what it tells, and then its result. Dropping the stream drops the operation.
pub(super) fn updates<'a, T: Send + 'a>(
    run: impl FnOnce(Events) -> BoxFuture<'a, Result<T, Error>>,
) -> BoxStream<'a, Result<Update<T>, Error>> {
    let (events, told) = mpsc::channel(EVENT_QUEUE);
    let done = run(events).into_stream().map(|result| result.map(Update::Done));
    let told = told_by(told).filter_map(|event| async { update(event).map(Ok) });
    // What was told comes before the result, also when both are there.
    stream::select_with_strategy(told, done, |(): &mut ()| PollNext::Left).boxed()
}

/// Runs an operation of which nobody wants to hear anything but the result.
pub(super) fn quietly<'a, T>(
    run: impl FnOnce(Events) -> BoxFuture<'a, Result<T, Error>>,
) -> BoxFuture<'a, Result<T, Error>> {
    let (events, _) = mpsc::channel(1);
    run(events)
}

fn told_by(told: mpsc::Receiver<Event>) -> impl Stream<Item = Event> {
    stream::unfold(told, |mut told| async { told.recv().await.map(|event| (event, told)) })
}

fn update<T>(event: Event) -> Option<Update<T>> {
    Some(match event {
        Event::Stage { message } => Update::Stage(message),
        Event::Notice { message } => Update::Notice(message),
        Event::Connected(path) => Update::Connected(path),
        Event::Waiting(waiting) => Update::Waiting(waiting),
        Event::Importing { done_bytes, total_bytes, done_files, total_files }
        | Event::Fetching { done_bytes, total_bytes, done_files, total_files } => {
            Update::Progress(Progress { done_bytes, total_bytes, done_files, total_files })
        }
        _ => return None,
    })
}
