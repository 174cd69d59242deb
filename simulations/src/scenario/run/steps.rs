//! The steps of a scenario, done: each when those are over that it waits for, and when its time has come.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{journal::Journal, lab::Lab, processes::Processes};
use crate::scenario::{
    model::{Action, NodeId, ProcessId, Scenario, Since, Step, StepId},
    outcome,
};

/// What the steps are done to.
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) lab: &'a Lab<'a>,
    pub(super) processes: &'a Processes,
    pub(super) journal: &'a Journal,
}

/// What came of all steps.
pub(super) struct Done {
    pub(super) steps: Vec<outcome::Step>,
    /// The first that could not be done, with the reason.
    pub(super) broken: Option<String>,
}

impl Stage<'_> {
    /// Starts what runs on nodes from the beginning, and does all steps; once one fails, none is begun any more. `after_each` is called
    /// with each that is done, before others that wait for it begin.
    pub(super) fn perform(&self, after_each: &(dyn Fn(&Step) + Sync)) -> Done {
        let mut steps: Vec<outcome::Step> = self.scenario.steps.iter().map(not_begun).collect();
        let mut broken = self.start_nodes().err().map(|error| format!("{error:#}"));
        let deadline = self.journal.began() + self.scenario.limit;
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let (mut begun, mut running) = (vec![false; steps.len()], 0);
            loop {
                for (index, step) in self.scenario.steps.iter().enumerate() {
                    let is_ready = step.after.iter().all(|StepId(before)| steps[*before].ended_s.is_some());
                    if begun[index] || !is_ready || broken.is_some() {
                        continue;
                    }
                    begun[index] = true;
                    running += 1;
                    let tell = tell.clone();
                    scope.spawn(move || {
                        let began_s = self.come_to(step, deadline);
                        // Whoever waits for the step has to hear of its end in any case.
                        let result = catch_unwind(AssertUnwindSafe(|| self.perform_one(step, deadline)));
                        let result = result.unwrap_or_else(|_| Err(anyhow!("it panicked")));
                        let ended_s = self.journal.now_s();
                        if result.is_ok() {
                            after_each(step);
                        }
                        let _ = tell.send((index, began_s, ended_s, result));
                    });
                }
                if running == 0 {
                    return;
                }
                let Ok((index, began_s, ended_s, result)) = told.recv() else { return };
                running -= 1;
                let step = &mut steps[index];
                (step.began_s, step.ended_s) = (Some(began_s), Some(ended_s));
                if let Err(error) = result {
                    step.error = Some(format!("{error:#}"));
                    broken.get_or_insert_with(|| format!("{}: {}: {error:#}", step.place, step.words));
                }
            }
        });
        Done { steps, broken }
    }

    /// Waits for the time of a step. Gives when that was.
    fn come_to(&self, step: &Step, deadline: Instant) -> f64 {
        let paused = Instant::now() + step.pause;
        let due = paused.max(self.journal.began() + step.at).min(deadline);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        self.journal.now_s()
    }

    fn perform_one(&self, step: &Step, deadline: Instant) -> Result<()> {
        ensure!(
            Instant::now() < deadline,
            "there was no time left: all steps together may take {:?}",
            self.scenario.limit
        );
        self.journal.note("step_began", &step.name);
        let result = self.act(&step.action, deadline);
        self.journal.note(if result.is_ok() { "step_done" } else { "step_failed" }, &step.name);
        result
    }

    fn act(&self, action: &Action, deadline: Instant) -> Result<()> {
        let network = self.lab.network();
        match action {
            Action::Run { processes, wait } => self.run(processes, *wait, deadline),
            Action::Kill { processes, signal } => {
                processes.iter().try_for_each(|process| self.processes.signal(self.name(*process), *signal))
            }
            Action::Stop { nodes } => {
                nodes.iter().try_for_each(|node| self.processes.stop(self.name(self.main(*node)?)))
            }
            Action::Start { nodes } => nodes.iter().try_for_each(|node| self.start(self.main(*node)?)),
            Action::Cut { sites } => {
                self.lab.cut(sites, true);
                Ok(())
            }
            Action::Heal { sites } => {
                self.lab.cut(sites, false);
                Ok(())
            }
            Action::Replug { node, to, gone } => {
                let host = &self.scenario.nodes[node.0].name;
                match to {
                    None if gone.is_zero() => network.readdress(host)?,
                    _ => {
                        let site = to.unwrap_or(self.scenario.nodes[node.0].site);
                        network.unplug(host)?;
                        thread::sleep(*gone);
                        network.plug(host, &self.scenario.sites[site.0].name)?;
                    }
                }
                self.lab.follow_lines()
            }
            Action::RestartRouter { sites, down } => self.at_once(sites.len(), |index| {
                network.restart_routers(&self.scenario.sites[sites[index].0].name, *down)
            }),
            Action::SetSite { site, properties } => {
                network.set_properties(&self.scenario.sites[site.0].name, properties)?;
                self.lab.follow_lines()
            }
            Action::SetLink { link } => {
                self.lab.set_link(link);
                Ok(())
            }
            Action::FillDisk { node, leave_bytes } => self.lab.fill_disk(*node, *leave_bytes),
            Action::WaitFor { event, processes, since, within, captures } => {
                let since_s = if *since == Since::Now { self.journal.now_s() } else { 0.0 };
                let patience = (Instant::now() + *within).min(deadline);
                for process in processes {
                    let name = self.name(*process);
                    let starts = self.scenario.starts_of(*process);
                    let told = self.journal.wait_for((name, starts), since_s, event, patience);
                    let told = told.with_context(|| self.missed(name, *within))?;
                    self.journal.capture(captures, &told)?;
                }
                Ok(())
            }
            Action::Pause => Ok(()),
        }
    }

    /// Does something several times at the same time.
    fn at_once(&self, times: usize, act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = (0..times).map(|index| scope.spawn(move || act(index))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("it panicked"),
            })
        })
    }

    fn run(&self, processes: &[ProcessId], wait: Option<Duration>, deadline: Instant) -> Result<()> {
        let patience = wait.map(|wait| (Instant::now() + wait).min(deadline));
        processes.iter().try_for_each(|process| self.start(*process))?;
        let Some(patience) = patience else { return Ok(()) };
        for process in processes {
            let name = self.name(*process);
            ensure!(
                self.processes.wait_until_ended(name, patience),
                "{name} has not ended within {:?}",
                wait.unwrap_or_default()
            );
        }
        Ok(())
    }

    fn start_nodes(&self) -> Result<()> {
        self.scenario.nodes.iter().filter_map(|node| node.main).try_for_each(|process| self.start(process))
    }

    fn start(&self, process: ProcessId) -> Result<()> {
        let process = &self.scenario.processes[process.0];
        self.processes.start(&process.name, self.lab.command(process, self.journal)?)
    }

    fn main(&self, node: NodeId) -> Result<ProcessId> {
        let node = &self.scenario.nodes[node.0];
        node.main.with_context(|| format!("{} has no command of its own", node.name))
    }

    fn name(&self, process: ProcessId) -> &str {
        &self.scenario.processes[process.0].name
    }

    /// Why an event did not come, as far as can be told.
    fn missed(&self, process: &str, within: Duration) -> String {
        let ended = match self.processes.runs(process).last() {
            None => " (it was not started)".to_owned(),
            Some(run) if run.ended_s.is_some() => match (run.code, run.signal) {
                (Some(code), _) => format!(" (it ended with {code}: {})", self.processes.last_words(process)),
                (None, signal) => format!(" (it was ended by signal {})", signal.unwrap_or_default()),
            },
            Some(_) => String::new(),
        };
        let told = self.journal.of(process);
        let last = told.last().map(|(_, event)| format!("; the last that it told: {event}")).unwrap_or_default();
        format!("{process} has not told it within {within:?}{ended}{last}")
    }
}

fn not_begun(step: &Step) -> outcome::Step {
    outcome::Step {
        name: step.name.clone(),
        words: step.words.clone(),
        place: step.place.to_string(),
        began_s: None,
        ended_s: None,
        error: None,
    }
}
