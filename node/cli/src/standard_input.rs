//! `share -`: standard input, written into the data folder, from where the node takes it.
//!
//! What it is not: sharing it; the node does that.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempPath;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{args::ShareArgs, screen::Screen};
use keyferry::{
    control::{Event, Failure},
    data_dir::TEMPORARY_PREFIX,
};

/// How much is read at a time, in bytes.
const READ_LEN: usize = 256 * 1024;
/// How often it is shown how much has come.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Whether standard input is to be shared.
///
/// # Errors
///
/// If what else was asked for does not go with it.
pub fn is_meant(args: &ShareArgs) -> Result<bool, Failure> {
    if !args.paths.iter().any(|path| path == Path::new("-")) {
        return Ok(false);
    }
    if args.paths.len() > 1 {
        return Err(Failure::usage("- is standard input, and does not go with other paths")
            .try_to("share them one by one; ./- is a file that is called so"));
    }
    if args.name.is_none() {
        return Err(Failure::usage("standard input has no name of its own").try_to("--name NAME, such as --name log"));
    }
    if args.watch || args.strict || !args.exclude.is_empty() {
        return Err(Failure::usage(
            "--watch, --exclude and --strict are for files and folders, not for standard input",
        )
        .try_to("leave them out; ./- is a file that is called -"));
    }
    Ok(true)
}

/// Writes all of standard input into the data folder. Dropping the path removes the file.
///
/// # Errors
///
/// If it cannot be read or written, or `cancel` comes before its end.
pub async fn spool(home: &Path, screen: &mut Screen, cancel: &CancellationToken) -> Result<TempPath, Failure> {
    let failed = |error: io::Error| {
        Failure::local(format!("cannot write into {}: {error}", home.display()))
            .try_to("make room there, or another --home")
    };
    let file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(home).map_err(failed)?;
    let (file, path) = file.into_parts();
    if io::stdin().is_terminal() {
        screen.notice("reading standard input; Ctrl-D ends it");
    }
    let (ended, mut copied) = oneshot::channel();
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    // Nobody waits for this thread: standard input may never end.
    thread::spawn(move || {
        let _ = ended.send(copy_in(&file, &counted));
    });
    let copied = loop {
        tokio::select! {
            copied = &mut copied => break copied,
            () = cancel.cancelled() => break Ok(Err(InputError::Interrupted)),
            () = tokio::time::sleep(SHOWN_EVERY) => {
                let done_bytes = done.load(Ordering::Relaxed);
                let read = Event::Importing { done_bytes, total_bytes: 0, done_files: 0, total_files: 1 };
                // That nobody reads what is shown is noticed at the result.
                let _ = screen.show(Instant::now(), &read);
            }
        }
    };
    screen.clear();
    match copied {
        Ok(Ok(())) => Ok(path),
        Ok(Err(InputError::Interrupted)) => Err(Failure::interrupted()),
        Ok(Err(InputError::Read(error))) => Err(Failure::local(format!("cannot read standard input: {error}"))),
        Ok(Err(InputError::Write(error))) => Err(failed(error)),
        Err(_) => Err(Failure::local("reading standard input failed")),
    }
}

enum InputError {
    Read(io::Error),
    Write(io::Error),
    Interrupted,
}

fn copy_in(mut file: &File, done: &AtomicU64) -> Result<(), InputError> {
    let (mut input, mut buffer) = (io::stdin().lock(), vec![0; READ_LEN]);
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(InputError::Read(error)),
        };
        file.write_all(&buffer[..read]).map_err(InputError::Write)?;
        done.fetch_add(read as u64, Ordering::Relaxed);
    }
}
