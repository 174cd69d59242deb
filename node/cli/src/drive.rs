//! Has a command carried out and shows what comes of it until it has ended.
//!
//! What it is not: who carries it out (`keyferry::node::runner`), or what it looks like (`screen.rs`, `render.rs`).

use std::{io, time::Duration};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{screen::Screen, text::size};
use keyferry::{
    Status,
    control::{Command, EVENT_QUEUE, Event, Failure, FailureKind, Runner},
};

/// How long a command may take to end after it was asked to stop.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How a command that did not fail has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// All is well.
    Done,
    /// It did its work, which was to look for damage, and found some.
    DamageFound,
    /// Whoever read its standard output had enough, as `head` has.
    NobodyReads,
}

/// Carries out a command by `runner`, and shows its events on `screen` as they come.
///
/// # Errors
///
/// What the command failed of; one of the kind `Interrupted` if `cancel` was cancelled, if standard output went away or if the
/// command did not end within [`STOP_GRACE`] after that.
pub async fn drive(
    runner: &dyn Runner,
    command: Command,
    screen: &mut Screen,
    cancel: &CancellationToken,
) -> Result<Completion, Failure> {
    let gets = matches!(command, Command::Get { .. });
    let mut fetched = None;
    let result = follow(runner, command, screen, cancel, &mut fetched, STOP_GRACE).await;
    screen.clear();
    result.map_err(|failure| match failure.kind {
        FailureKind::Interrupted if gets => Failure {
            message: match fetched {
                Some((done, total)) => format!("{}; {} is verified and kept", failure.message, of(done, total)),
                None => failure.message,
            },
            advice: Some("run the same command again: it goes on where this one stopped".to_owned()),
            ..failure
        },
        _ => failure,
    })
}

/// Asks for the state of a node, and what it has to be told beside, without showing anything.
///
/// # Errors
///
/// What the runner says.
pub async fn status_of(runner: &dyn Runner, cancel: &CancellationToken) -> Result<(Box<Status>, Vec<String>), Failure> {
    let (events, mut pending) = mpsc::channel(EVENT_QUEUE);
    runner.run(Command::Status, events, cancel.clone()).await?;
    let mut notices = Vec::new();
    while let Ok(event) = pending.try_recv() {
        match event {
            Event::Status(status) => return Ok((status, notices)),
            Event::Notice { message } => notices.push(message),
            _ => {}
        }
    }
    Err(Failure::new(FailureKind::Local, "the node does not tell its state").try_to("run `keyferry status` again"))
}

async fn follow(
    runner: &dyn Runner,
    command: Command,
    screen: &mut Screen,
    cancel: &CancellationToken,
    fetched: &mut Option<(u64, u64)>,
    stop_grace: Duration,
) -> Result<Completion, Failure> {
    let (events, mut pending) = mpsc::channel(EVENT_QUEUE);
    let stop = cancel.child_token();
    let mut run = runner.run(command, events, stop.clone()).fuse();
    let mut ended = None;
    let mut outcome = Completion::Done;
    let mut unwritable: Option<io::Error> = None;
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(stop_grace).await;
    };
    tokio::pin!(grace);
    let mut stop_told = false;
    loop {
        tokio::select! {
            // That it stops is said before how it stopped.
            biased;
            () = cancel.cancelled(), if !stop_told => {
                stop_told = true;
                screen.clear();
                screen.notice("stopping; Ctrl-C again stops at once");
            }
            done = &mut run, if ended.is_none() => {
                ended = Some(done);
                // What has been told by now is all there is, even if a straggler holds the other end.
                pending.close();
            }
            event = pending.recv() => {
                let Some(event) = event else { break };
                if matches!(event, Event::Verified { damaged: 1.., .. }) {
                    outcome = Completion::DamageFound;
                }
                if let Event::Fetching { done_bytes: done_bytes @ 1.., total_bytes, .. } = event {
                    *fetched = Some((done_bytes, total_bytes));
                }
                if unwritable.is_none() && let Err(error) = screen.show(std::time::Instant::now(), &event) {
                    unwritable = Some(error);
                    stop.cancel();
                }
            }
            () = &mut grace, if ended.is_none() => {
                return Err(Failure::new(FailureKind::Interrupted, "it did not stop in time, and was left"));
            }
        }
    }
    let ended = match ended {
        Some(ended) => ended,
        None => run.await,
    };
    if let Some(error) = unwritable {
        return Err(Failure::new(FailureKind::Interrupted, format!("standard output went away: {error}")));
    }
    ended.map(|()| outcome)
}

fn of(done: u64, total: u64) -> String {
    if total > 0 { format!("{} of {}", size(done), size(total)) } else { size(done) }
}

#[cfg(test)]
mod tests;
