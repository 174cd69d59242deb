//! Power cuts while commands change a data folder, each before some change of the disk: what a command has told is true in the next
//! boot, and what it has not told is either done or not begun.
//!
//! ```text
//! in turns    a command, until it is about to make a certain change of the disk, or some time after its result
//!             killed; the disk has what was waited for, and of the rest what it happens to have; another boot
//!             now and then, a node is started first of all, and another one fetches each share and compares it
//!             get again                       after a cut of `get`, which does not wait for the disk: mends all
//!             id, store ls, contacts ls       the state of before it or of after it; of after it, if it had told its result
//!             store verify                    nothing is damaged
//! at the end  a node on the folder, from which each share is fetched and compared
//! ```
//! The disk is a file system of FUSE ([`disk`], [`mounted`]). In some rounds the data folder is a new one, so that its making is cut as well.
//!
//! What it is not: a disk that lies about what is on it, or that damages what it had.

mod disk;
mod machine;
mod mounted;
mod report;
mod tree;

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use keyferry::node::api::{Event, Failure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use self::{disk::Disk, machine::Machine, mounted::Mounted, report::Report};
use crate::{
    folder_changes::{Change, DISK, FolderState, Ground, Kind, is_told},
    lab::{Lab, Process},
};

/// How far beyond the changes that the longest of its kind made the last cuts are, so that some come after its result.
const BEYOND: f64 = 1.1;
/// How long after its result the power of a command is cut at the latest: what it does then, nobody waits for.
const AFTER_RESULT: Duration = Duration::from_millis(40);
/// How often to look whether the power is cut.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Of so many rounds, one has its cut after the result, whatever it was that came before.
const AFTER_RESULT_IN: u32 = 3;
/// Of so many rounds, one has a new data folder.
const NEW_FOLDER_IN: u32 = 16;
/// Of so many rounds, one has all shares fetched before anything else looks at them.
const FETCHED_IN: u32 = 4;
/// How much more often the commands come that most users have the most of.
const OFTEN: usize = 3;
/// How many rounds go by between two lines that say how far it is.
const LINE_EVERY: u32 = 100;

/// How often to cut the power.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many commands lose power.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Repeats the commands of an earlier run, and what the disk has of each.
    #[arg(long)]
    seed: Option<u64>,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Cuts, checks and prints. Anything that was told and is not so is an error.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    machine::own_mounts()?;
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::new(options.dir.as_deref())?;
    let machine = Machine::new(&lab.path("boot-id"), &mut random)?;
    let at = lab.folder(DISK)?;
    let owner = at.metadata()?;
    let disk = Arc::new(Disk::new(owner.uid(), owner.gid()));
    let mounted = Mounted::new(disk.clone(), &at)?;
    let ground = Ground::new(lab, seed)?;
    disk.settle();
    let state = FolderState::default();
    let report = Report::new(seed, options.count);
    let mut rounds = Rounds { random, disk, machine, _mounted: mounted, ground, state, report };
    rounds.undisturbed()?;
    for number in 1..=options.count {
        rounds.next().with_context(|| format!("power cut {number}; seed {seed}"))?;
        if number % LINE_EVERY == 0 {
            eprintln!("{number} of {}", options.count);
        }
    }
    rounds.report.fetched += rounds.ground.fetch_all(&rounds.state).with_context(|| format!("seed {seed}"))?;
    rounds.report.seconds = began.elapsed().as_secs_f64();
    rounds.report.print(json)
}

struct Rounds {
    random: StdRng,
    disk: Arc<Disk>,
    machine: Machine,
    // Dropped before the folder in which it is mounted.
    _mounted: Mounted,
    ground: Ground,
    /// What the data folder is known to hold.
    state: FolderState,
    report: Report,
}

/// What had come of a command when its power was cut.
struct Disturbed {
    /// Whether it had told its result.
    told: bool,
    /// The key of the node, if it had told that.
    node: Option<String>,
}

impl Rounds {
    /// Has each command done once with power, which says how many changes it makes.
    fn undisturbed(&mut self) -> Result<()> {
        for kind in Kind::ALL {
            let change = Change::random(kind, &self.state, &self.ground.choice(), &mut self.random);
            let change = change.with_context(|| format!("{kind:?} cannot be the next of all"))?;
            let after = self.ground.prepare(&change, &self.state, &mut self.random)?;
            let before = self.disk.changes();
            let mut process = self.ground.start(&change)?;
            process.wait_for(|event| is_told(event).then_some(())).with_context(|| format!("{change:?}"))?;
            self.report.makes(kind, self.disk.changes() - before);
            process.kill()?;
            self.disk.settle();
            self.check(&change, after, true)?;
        }
        Ok(())
    }

    /// Cuts the power of a command, and looks at what has become of the folder.
    fn next(&mut self) -> Result<()> {
        let is_new = self.random.random_ratio(1, NEW_FOLDER_IN);
        if is_new {
            self.ground.begin_anew()?;
            self.disk.settle();
            self.state = FolderState::default();
        }
        let change = self.any_change()?;
        let mut after = self.ground.prepare(&change, &self.state, &mut self.random)?;
        let last = (self.report.changes_of(change.kind()) as f64 * BEYOND) as u64;
        let is_within = !self.random.random_ratio(1, AFTER_RESULT_IN);
        let at = is_within.then(|| self.random.random_range(0..=last));
        let folder = if is_new { "a new folder" } else { "the folder" };
        let what = || format!("{change:?} in {folder}, its power cut after {at:?} changes");
        let Disturbed { told, node } = self.disturb(&change, at).with_context(what)?;
        after.node = after.node.or(node);
        let is_done = self.check(&change, after, told).with_context(|| format!("told: {told}")).with_context(what)?;
        self.report.cut(change.kind(), told, is_done);
        Ok(())
    }

    fn any_change(&mut self) -> Result<Change> {
        let choice = self.ground.choice();
        let often = |kind| {
            let is_often = !matches!(kind, Kind::StoreRemove | Kind::StoreGc | Kind::ContactsRemove);
            std::iter::repeat_n(kind, if is_often { OFTEN } else { 1 })
        };
        let possible: Vec<_> = Kind::ALL
            .into_iter()
            .flat_map(often)
            .filter_map(|kind| Change::random(kind, &self.state, &choice, &mut self.random))
            .collect();
        Ok(possible.choose(&mut self.random).context("there is nothing to change")?.clone())
    }

    /// Starts a command, cuts its power when it is about to make this change, or else some time after its result, and starts the machine anew.
    fn disturb(&mut self, change: &Change, at: Option<u64>) -> Result<Disturbed> {
        let after_result = self.random.random_range(Duration::ZERO..AFTER_RESULT);
        if let Some(at) = at {
            self.disk.cut_after(at);
        }
        let mut process = self.ground.start(change)?;
        let (before, mut deadline) = (self.disk.changes(), None);
        while !self.disk.is_cut() {
            let Some(events) = process.heard(LOOK_EVERY) else { break };
            if deadline.is_none() && events.iter().any(Event::is_result) {
                deadline = Some(Instant::now() + after_result);
                self.report.makes(change.kind(), self.disk.changes() - before);
            }
            if deadline.is_some_and(|deadline| deadline < Instant::now()) {
                break;
            }
        }
        self.disk.cut_now();
        let outcome = self.end(process)?;
        self.disk.power_on(&mut self.random);
        self.machine.boot_anew(&mut self.random)?;
        if let Some(Failure { message, .. }) = outcome.iter().find_map(failure) {
            anyhow::bail!("it failed: {message}");
        }
        let node = |event: &Event| if let Event::Shared(shared) = event { shared.address.node() } else { None };
        let node = outcome.iter().find_map(node).map(|node| node.to_string());
        Ok(Disturbed { told: outcome.iter().any(is_told), node })
    }

    /// Ends a process that may wait for a disk without power. What it told until then, it told before the disk had more.
    fn end(&self, mut process: Process) -> Result<Vec<Event>> {
        process.begin_to_kill()?;
        self.disk.refuse();
        Ok(process.finish()?.events().to_vec())
    }

    /// Finds that the folder opens, is sound, and is as after the change, or else as before it if nothing was told. Says whether it is
    /// as after it.
    fn check(&mut self, change: &Change, after: FolderState, told: bool) -> Result<bool> {
        if self.random.random_ratio(1, FETCHED_IN) {
            let certain = if told { after.clone() } else { self.state.in_common(&after) };
            self.report.fetched += self.ground.fetch_all(&certain).context("fetched first of all")?;
        }
        if let Change::Get(number) = change {
            self.mend(*number, change).context("the same get again")?;
        }
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
        if matches!(change, Change::Get(_) | Change::StoreRemove(_)) {
            // What was fetched, or cleared away by the lab, comes to the disk by and by.
            self.disk.settle();
        }
        self.state = found;
        Ok(is_done)
    }

    /// Fetches again what a power cut may have taken a part of. Nothing else may be damaged.
    fn mend(&mut self, number: usize, change: &Change) -> Result<()> {
        let was_whole = self.ground.is_whole(number);
        if self.random.random() {
            let damaged = self.ground.damaged(&mut Vec::new())?;
            let others: Vec<_> = damaged.iter().filter(|damaged| !self.ground.is_of_fetched(damaged, number)).collect();
            ensure!(others.is_empty(), "something else is damaged: {others:#?}");
        }
        self.ground.start(change)?.finish()?.done()?;
        ensure!(self.ground.is_whole(number), "what was fetched is not what was sent");
        self.report.mended += u64::from(!was_whole);
        Ok(())
    }
}

fn failure(event: &Event) -> Option<Failure> {
    if let Event::Failed(failure) = event { Some(failure.clone()) } else { None }
}
