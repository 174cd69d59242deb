//! What came of the kills.

use std::{collections::BTreeMap, time::Duration};

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
    commands: BTreeMap<Kind, Kills>,
    /// What the commands after a kill said besides their results, and how often.
    notices: BTreeMap<String, u64>,
    /// How many shares were fetched and compared at the end.
    pub(super) fetched: u64,
}

/// What came of the kills of one command.
#[derive(Debug, Default, Serialize)]
struct Kills {
    /// How long it takes to its result where nobody kills it.
    whole_ms: f64,
    killed: u64,
    /// Of these, how many had told their result.
    told: u64,
    /// How many had not, and it was done.
    done_untold: u64,
    /// How many had not, and all was as before; a change to what was there already counts as done.
    not_done: u64,
}

impl Report {
    pub(super) fn new(seed: u64, count: u32) -> Self {
        Self { seed, count, seconds: 0.0, commands: BTreeMap::new(), notices: BTreeMap::new(), fetched: 0 }
    }

    pub(super) fn took(&mut self, kind: Kind, whole: Duration) {
        self.commands.entry(kind).or_default().whole_ms = whole.as_secs_f64() * 1000.0;
    }

    /// How long a command of this kind takes.
    pub(super) fn whole(&self, kind: Kind) -> Duration {
        Duration::from_secs_f64(self.commands.get(&kind).map_or(0.0, |kills| kills.whole_ms) / 1000.0)
    }

    pub(super) fn killed(&mut self, kind: Kind, told: bool, is_done: bool) {
        let kills = self.commands.entry(kind).or_default();
        kills.killed += 1;
        kills.told += u64::from(told);
        kills.done_untold += u64::from(is_done && !told);
        kills.not_done += u64::from(!is_done);
    }

    pub(super) fn noticed(&mut self, message: &str) {
        if self.notices.len() < MAX_NOTICES || self.notices.contains_key(message) {
            *self.notices.entry(message.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("{} commands killed in {:.0} s; seed {}\n", self.count, self.seconds, self.seed);
        println!("  command           whole    killed   told   done, untold   not done");
        for (kind, kills) in &self.commands {
            let Kills { whole_ms, killed, told, done_untold, not_done } = kills;
            println!(
                "  {:<15} {whole_ms:>6.0} ms {killed:>7} {told:>6} {done_untold:>14} {not_done:>10}",
                format!("{kind:?}")
            );
        }
        for (message, count) in &self.notices {
            println!("\n  {count} times: {message}");
        }
        println!("\n  nothing that was told is lost, nothing is damaged; {} shares fetched and compared", self.fetched);
        Ok(())
    }
}
