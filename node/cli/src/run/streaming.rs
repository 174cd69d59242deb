//! `get -o -`: the bytes of one file on standard output, and nothing else there.
//!
//! They come through a socket in the data folder, also from a node in another process.
//!
//! What it is not: fetching or verifying; the node does that.

use std::{
    io::{self, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{Completion, Executor, GetArgs, Need, Run, leave, pasted};
use keyferry::{
    control::{Command, Failure, FailureKind},
    data_dir::TEMPORARY_PREFIX,
};

impl Run<'_> {
    /// Streams a file to standard output.
    pub(super) async fn stream(&mut self, args: GetArgs) -> Result<Completion, Failure> {
        let GetArgs { address, more, overwrite, mirror, dry_run, sync, seed, wait, network, .. } = args;
        if overwrite || mirror || dry_run || sync || seed {
            let message =
                "--overwrite, --mirror, --dry-run, --sync and --seed are for what is kept, and -o - keeps nothing";
            return Err(Failure::usage(message).try_to("the path of a file with -o; ./- is one that is called so"));
        }
        let words: Vec<String> = [address].into_iter().chain(more).collect();
        let address = pasted::address_in_words(&words)?;
        let read = |outlet: &Path| Command::Read { address: address.clone(), outlet: outlet.to_owned(), wait };
        read(&self.home).check()?;
        let need = Need::Fetch(&network);
        let executor = self.executor(need).await?;
        let outlet = match tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .make_in(&self.home, |path| UnixListener::bind(path))
        {
            Ok(outlet) => outlet,
            Err(error) => {
                if let Executor::Own(node, _) = executor {
                    leave(node, None).await;
                }
                return Err(Failure::local(format!("cannot listen in {}: {error}", self.home.display()))
                    .try_to("another --home, or the path of a file with -o"));
            }
        };
        let command = read(outlet.path());
        let failed = CancellationToken::new();
        let copying = tokio::spawn(copy_out(outlet, failed.clone()));
        let outcome = self.carry_out(command, executor, need).await;
        if outcome.is_err() {
            failed.cancel();
        }
        match copying.await.map_err(|error| Failure::local(error.to_string()))? {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Completion::NobodyReads),
            Err(error) => Err(Failure::new(FailureKind::Local, format!("cannot write to standard output: {error}"))
                .try_to("make room, if it is a file")),
            Ok(()) => outcome,
        }
    }
}

/// Copies what the node streams to standard output; nothing, if it has failed before it began.
async fn copy_out(outlet: NamedTempFile<UnixListener>, failed: CancellationToken) -> io::Result<()> {
    let Some(accepted) = failed.run_until_cancelled(outlet.as_file().accept()).await else { return Ok(()) };
    let stream = accepted?.0.into_std()?;
    stream.set_nonblocking(false)?;
    // Whoever reads standard output may take any time.
    tokio::task::spawn_blocking(move || {
        let (mut stream, mut out) = (stream, io::stdout().lock());
        io::copy(&mut stream, &mut out)?;
        out.flush()
    })
    .await?
}
