//! What came of the power cuts.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::folder_changes::Kind;

/// How many different notices are kept.
const MAX_NOTICES: usize = 20;

/// The figures.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    count: u32,
    /// How long all of it took.
    pub(super) seconds: f64,
    commands: BTreeMap<Kind, Cuts>,
    /// What the commands in the next boot said besides their results, and how often.
    notices: BTreeMap<String, u64>,
    /// How often a cut had taken something of what was fetched, and the same `get` brought it.
    pub(super) mended: u64,
    /// How many shares were fetched and compared.
    pub(super) fetched: u64,
}

/// What came of the cuts of one command.
#[derive(Debug, Default, Serialize)]
struct Cuts {
    /// How many changes of the disk it made at most until its result.
    changes: u64,
    cut: u64,
    /// Of these, how many had told their result.
    told: u64,
    /// How many had not, and it was done.
    done_untold: u64,
    /// How many had not, and all was as before; a change to what was there already counts as done.
    not_done: u64,
}

impl Report {
    pub(super) fn new(seed: u64, count: u32) -> Self {
        let (commands, notices) = (BTreeMap::new(), BTreeMap::new());
        Self { seed, count, seconds: 0.0, commands, notices, mended: 0, fetched: 0 }
    }

    pub(super) fn makes(&mut self, kind: Kind, changes: u64) {
        let cuts = self.commands.entry(kind).or_default();
        cuts.changes = cuts.changes.max(changes);
    }

    /// How many changes of the disk a command of this kind makes at most.
    pub(super) fn changes_of(&self, kind: Kind) -> u64 {
        self.commands.get(&kind).map_or(0, |cuts| cuts.changes)
    }

    pub(super) fn cut(&mut self, kind: Kind, told: bool, is_done: bool) {
        let cuts = self.commands.entry(kind).or_default();
        cuts.cut += 1;
        cuts.told += u64::from(told);
        cuts.done_untold += u64::from(is_done && !told);
        cuts.not_done += u64::from(!is_done);
    }

    /// Counts what was said. Which number it bears does not matter.
    pub(super) fn noticed(&mut self, message: &str) {
        let message = message.replace(|letter: char| letter.is_ascii_digit(), "");
        if self.notices.len() < MAX_NOTICES || self.notices.contains_key(&message) {
            *self.notices.entry(message).or_default() += 1;
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("{} power cuts in {:.0} s; seed {}\n", self.count, self.seconds, self.seed);
        println!("  command           changes    cut   told   done, untold   not done");
        for (kind, Cuts { changes, cut, told, done_untold, not_done }) in &self.commands {
            println!("  {:<16} {changes:>8} {cut:>6} {told:>6} {done_untold:>14} {not_done:>10}", format!("{kind:?}"));
        }
        for (message, count) in &self.notices {
            println!("\n  {count} times: {message}");
        }
        println!(
            "\n  nothing that was told is lost, nothing is damaged; {} fetched folders mended; {} shares fetched and compared",
            self.mended, self.fetched
        );
        Ok(())
    }
}
