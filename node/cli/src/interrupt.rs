//! Ctrl-C and SIGTERM: the first asks to stop, the second stops at once.
//!
//! What it is not: what stopping means to a command.

use std::{io, process};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use keyferry::control::FailureKind;

/// Watches for both signals from now on; the token is cancelled at the first.
///
/// # Errors
///
/// If the operating system does not let us watch.
pub fn watch() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if cancelled.is_cancelled() {
                // Whatever was verified is on disk already, and the lock goes with the process.
                process::exit(FailureKind::Interrupted.exit_code().into());
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}
