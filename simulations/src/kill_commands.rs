//! `kill -9` of the commands that change a data folder, each at a random point, again and again: what a command has told is true
//! afterwards, and what it has not told is either done or not begun.
//!
//! ```text
//! in turns    a command that changes the folder, killed
//!             store ls, contacts ls   the state of before it or of after it; of after it, if it had told its result
//!             store verify            nothing is damaged
//! at the end  a node on the folder, from which each share is fetched and compared
//! ```
//! What it is not: a power failure, for which see [`super::power_cuts`]; what was written stays written. Nor a kill in the middle of a long transfer; see [`super::kill`].

mod report;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use keyferry::node::api::{Event, Failure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use self::report::Report;
use crate::{
    folder_changes::{Change, DISK, FolderState, Ground, Kind, is_told},
    lab::{Lab, Process},
};

/// How far beyond the time that a whole command takes the last kills are, so that some find it done.
const BEYOND: f64 = 1.25;
/// How many rounds go by between two lines that say how far it is.
const LINE_EVERY: u32 = 100;

/// How often to kill.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many commands are killed.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Repeats the commands of an earlier run, and when they are killed.
    #[arg(long)]
    seed: Option<u64>,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Kills, checks and prints. Anything that was told and is not so is an error.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let began = Instant::now();
    let lab = Lab::new(options.dir.as_deref())?;
    lab.folder(DISK)?;
    let mut rounds = Rounds {
        random: StdRng::seed_from_u64(seed),
        ground: Ground::new(lab, seed)?,
        state: FolderState::default(),
        report: Report::new(seed, options.count),
    };
    rounds.undisturbed()?;
    for number in 1..=options.count {
        rounds.next().with_context(|| format!("kill {number}; seed {seed}"))?;
        if number % LINE_EVERY == 0 {
            eprintln!("{number} of {}", options.count);
        }
    }
    rounds.report.fetched = rounds.ground.fetch_all(&rounds.state).with_context(|| format!("seed {seed}"))?;
    rounds.report.seconds = began.elapsed().as_secs_f64();
    rounds.report.print(json)
}

struct Rounds {
    random: StdRng,
    ground: Ground,
    /// What the data folder is known to hold.
    state: FolderState,
    report: Report,
}

impl Rounds {
    /// Has each command done once with no kill, which says how long it takes.
    fn undisturbed(&mut self) -> Result<()> {
        for kind in Kind::ALL {
            let change = Change::random(kind, &self.state, &self.ground.choice(), &mut self.random);
            let change = change.with_context(|| format!("{kind:?} cannot be the next of all"))?;
            let after = self.ground.prepare(&change, &self.state, &mut self.random)?;
            let began = Instant::now();
            let mut process = self.ground.start(&change)?;
            process.wait_for(|event| is_told(event).then_some(())).with_context(|| format!("{change:?}"))?;
            self.report.took(kind, began.elapsed());
            process.kill()?;
            self.check(&change, &after, true)?;
        }
        Ok(())
    }

    /// Has a command killed, and looks at what has become of the folder.
    fn next(&mut self) -> Result<()> {
        let possible: Vec<_> = Kind::ALL
            .into_iter()
            .filter_map(|kind| Change::random(kind, &self.state, &self.ground.choice(), &mut self.random))
            .collect();
        let change = possible.choose(&mut self.random).context("there is nothing to change")?.clone();
        let after = self.ground.prepare(&change, &self.state, &mut self.random)?;
        let latest = self.report.whole(change.kind()).mul_f64(BEYOND);
        let at = self.random.random_range(Duration::ZERO..latest);
        let told = kill_at(self.ground.start(&change)?, at).with_context(|| format!("{change:?}"))?;
        let is_done = self.check(&change, &after, told).with_context(|| format!("{change:?}, killed after {at:?}"))?;
        self.report.killed(change.kind(), told, is_done);
        Ok(())
    }

    /// Finds that the folder opens, is sound, and is as after the change, or else as before it if nothing was told. Says whether it is
    /// as after it.
    fn check(&mut self, change: &Change, after: &FolderState, told: bool) -> Result<bool> {
        let looked = self.ground.look()?;
        looked.notices.iter().for_each(|message| self.report.noticed(message));
        let found = looked.state;
        let is_done = after.is_that_of(&found);
        ensure!(
            is_done || !told && self.state.is_that_of(&found),
            "told: {told}\nbefore: {:#?}\nafter: {after:#?}\nfound: {found:#?}",
            self.state
        );
        self.ground.settle(change, &found)?;
        self.state = found;
        Ok(is_done)
    }
}

/// Kills a process some time after it was started. Says whether it had told its result.
fn kill_at(process: Process, after: Duration) -> Result<bool> {
    thread::sleep(after);
    let outcome = process.kill()?;
    let failed = |event: &Event| if let Event::Failed(failure) = event { Some(failure.clone()) } else { None };
    if let Some(Failure { message, .. }) = outcome.events().iter().find_map(failed) {
        anyhow::bail!("it failed: {message}");
    }
    Ok(outcome.events().iter().any(is_told))
}
