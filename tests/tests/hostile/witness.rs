//! A getter that meets a liar, and what has to hold afterwards.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use keyferry::node::api::FailureKind;
use keyferry_tests::{
    binary, content,
    lab::Lab,
    process::{Keyferry, Outcome},
};

/// Long enough for a getter to give up on a peer that says nothing at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// What a getter may have on disk after it was lied to, in bytes.
const MAX_LEFT: u64 = 32 << 20;

/// Address space that a getter gets, in KiB: enough for any honest fetch, far too little for a promise of terabytes.
const MAX_ADDRESS_SPACE: u64 = 4 << 20;

/// Fetches from a liar, with bounded memory.
pub(crate) fn get(lab: &Lab, address: &str) -> Result<Outcome> {
    let out = lab.folder("out")?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MAX_ADDRESS_SPACE}; exec \"$@\""), "sh"]).arg(binary::keyferry()?);
    lab.arguments(&mut command, "getter", ["get", address, "-o"]);
    command.arg(&out);
    Keyferry::start(command)?.finish(PATIENCE)
}

/// Requires that the fetch fails for the peer's sake, leaves nothing in the target and little elsewhere.
pub(crate) fn refused(lab: &Lab, address: &str) -> Result<String> {
    refused_as(FailureKind::Network, lab, address)
}

/// The same of one that is not begun, because the file system here has no room for what the peer says that it has, or takes no such file.
pub(crate) fn refused_for_want_of_room(lab: &Lab, address: &str) -> Result<()> {
    let failure = refused_as(FailureKind::Local, lab, address)?;
    ensure!(["free space", "no file of that size"].iter().any(|why| failure.contains(why)), "{failure}");
    Ok(())
}

fn refused_as(kind: FailureKind, lab: &Lab, address: &str) -> Result<String> {
    let outcome = get(lab, address)?;
    let failure = outcome.failure()?;
    ensure!(failure.kind == kind, "not {kind:?}: {failure:?}");
    content::unfinished(&lab.path("out"))?;
    let left = used(&lab.home("getter"))? + used(&lab.path("out"))?;
    ensure!(left < MAX_LEFT, "{left} bytes are left on the disk");
    ensure!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    Ok(format!("{failure:?}"))
}

/// Bytes that are taken on the disk, holes not counted.
fn used(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(sum)
}

/// Tries all cases at the same time, since each takes as long as a getter's patience, and gives the first failure.
pub(crate) fn each<C: std::fmt::Debug + Sync>(cases: &[C], test: impl Fn(&C) -> Result<()> + Sync) -> Result<()> {
    /// How many getters run at once.
    const AT_ONCE: usize = 18;
    for some in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let test = &test;
            let run = |case| scope.spawn(move || test(case).with_context(|| format!("{case:?}")));
            let running: Vec<_> = some.iter().map(run).collect();
            running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a case panicked")))
        })?;
    }
    Ok(())
}

/// Requires that a real sharer still serves a real getter.
pub(crate) fn still_serves(lab: &Lab, address: &str, source: &Path) -> Result<()> {
    let out = lab.folder("honest-out")?;
    let outcome = lab.get("honest", address, &out)?;
    content::same(source, &outcome.fetched()?.path)
}
