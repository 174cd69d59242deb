//! The one way to have a command done, whether by the node in this process or by one that runs already.
//!
//! What it is not: who does it; see `node` and `local`.

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api::{Command, Event, Failure};

/// How many events may wait for a front end before the command waits for it.
pub const EVENT_QUEUE: usize = 64;

/// Something that carries out commands.
pub trait Runner: Send + Sync {
    /// Carries out a command and tells of it on `events`; the last event is the result or [`Event::Failed`].
    ///
    /// # Errors
    ///
    /// The same failure that the last event tells. When `cancel` is cancelled, the command ends soon with a failure of
    /// the kind `Interrupted`.
    fn run(
        &self,
        command: Command,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Failure>>;
}
