//! The folder of one run: what it works in, and what is kept of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    network,
    scenario::{
        folder::{RESULT, read_entries, write_page},
        outcome::{Outcome, Verdict},
        report,
    },
};

/// Begins the names of folders that nobody asked to keep; the process follows.
const PREFIX: &str = "keyferry-run-";

/// What runs work in, and nobody needs any more when they are over.
const SCRATCH: [&str; 3] = ["homes", "content", "routers"];

/// A folder that a run works in.
pub(super) struct Folder {
    path: PathBuf,
    /// Whether it stays, whatever comes of the run.
    is_wanted: bool,
    has_ended: bool,
}

impl Folder {
    /// Makes one: the folder that is to be kept or, if it is to have several, one below it.
    pub(super) fn new(keep: Option<&Path>, name: Option<String>) -> Result<Self> {
        let (path, is_wanted) = match keep {
            Some(keep) => (name.map_or_else(|| keep.to_owned(), |name| keep.join(name)), true),
            None => {
                let prefix = format!("{PREFIX}{}-", std::process::id());
                (tempfile::Builder::new().prefix(&prefix).tempdir()?.keep(), false)
            }
        };
        ensure!(
            !path.join(RESULT).exists(),
            "{} has a result already; name another folder, or remove it",
            path.display()
        );
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let path = fs::canonicalize(path)?;
        fs::create_dir_all(path.join("logs"))?;
        Ok(Self { path, is_wanted, has_ended: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the files of the scenario, such that they can be run from there again.
    pub(super) fn keep_sources(&self, sources: &[(PathBuf, String)]) -> Result<()> {
        for (index, (path, text)) in sources.iter().enumerate() {
            let name = path.file_name().filter(|_| index > 0).map_or_else(|| "scenario.toml".into(), PathBuf::from);
            let to = self.path.join(name);
            // A run from its own folder has them there.
            if fs::read(&to).is_ok_and(|there| there == text.as_bytes()) {
                continue;
            }
            fs::write(to, text)?;
        }
        Ok(())
    }

    /// Writes what came of the run, and removes what nobody needs any more: all, if everything held and nobody asked for it. Gives
    /// where it is otherwise.
    pub(super) fn end(&mut self, outcome: &Outcome) -> Result<Option<PathBuf>> {
        self.has_ended = true;
        if !self.is_wanted && outcome.verdict == Verdict::Held {
            fs::remove_dir_all(&self.path)?;
            return Ok(None);
        }
        fs::write(self.path.join(RESULT), serde_json::to_vec_pretty(outcome)?)?;
        write_page(&self.path, &report::page(outcome, &read_entries(&self.path)?))?;
        self.remove_scratch();
        Ok(Some(self.path.clone()))
    }

    fn remove_scratch(&self) {
        for name in SCRATCH {
            let _ = fs::remove_dir_all(self.path.join(name));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // The run could not even begin, or went on no further.
        if self.is_wanted { self.remove_scratch() } else { drop(fs::remove_dir_all(&self.path)) }
    }
}

/// Removes folders of runs that did not end, and whose process is dead.
pub(super) fn sweep_dead() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        let is_dead = owner.is_some_and(network::is_dead);
        if is_dead && !entry.path().join(RESULT).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
