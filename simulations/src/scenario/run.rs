//! `run`: a scenario, built, done and judged, as often as it is asked for.
//!
//! ```text
//! lab         the network and the folders of a scenario     disk   a file system of a node's own
//! processes   what runs on nodes                            journal   what they tell, on one clock
//! steps       what happens                                  traffic   what lines carry meanwhile
//! judge       what was expected, beside what was seen       folder    what is kept of it
//! figures     what nodes say of themselves
//! compose     the same in containers, where another of this program does all that
//! ```

mod compose;
mod disk;
mod figures;
mod folder;
mod journal;
mod judge;
mod lab;
mod processes;
mod steps;
mod traffic;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use self::{
    folder::Folder,
    journal::Journal,
    judge::{Judge, begin_of, told},
    lab::{Lab, public_name},
    processes::Processes,
    steps::Stage,
    traffic::Samples,
};
use super::{
    folder::{EVENTS, PAGE},
    load::{Loaded, load},
    model::{Action, ExpectationKind, ProcessId, Program, Scenario, SiteId, Step},
    outcome::{self, FORMAT, Outcome, Verdict},
    words,
};
use crate::{
    lab::keyferry_binary,
    network::{self, Engine, FAKETIME, Image, Lacking},
};

/// How long the public nodes may take until they are up.
const START: Duration = Duration::from_secs(60);

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A file, or the name of a scenario that comes with the program (see `keyferry-sim scenarios`).
    scenario: String,
    /// What hosts and routers are.
    #[arg(long, value_name = "ENGINE", default_value = "namespaces")]
    engine: EngineKind,
    /// Where random content begins [default: the file's].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How often, each time with the next seed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeat: u64,
    /// Keep what came of it in this folder [default: only if something did not hold, in the folder for temporary files].
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Stop after this step, or after all, say how to enter each node, and wait for Ctrl-C.
    #[arg(long, value_name = "STEP", num_args = 0..=1, conflicts_with = "repeat")]
    hold: Option<Option<String>>,
    /// Which choice of values to run, from 0: told by a Compose file.
    #[arg(long, hide = true)]
    choice: Option<usize>,
    /// The lab whose containers are used: told by a Compose file.
    #[arg(long, hide = true, required_if_eq("engine", "beside"))]
    lab: Option<String>,
}

/// What hosts and routers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineKind {
    /// Network namespaces.
    Namespaces,
    /// Containers of the Docker engine of this machine, of an image that is made of the binary.
    Docker,
    /// What a Compose file has started.
    #[value(hide = true)]
    Beside,
}

impl EngineKind {
    fn id(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Docker | Self::Beside => "docker",
        }
    }
}

/// Runs a scenario for each choice of its values, prints what came of each, and says whether all held.
pub(crate) fn run(options: &Options, json: bool) -> Result<bool> {
    let loaded = load(&options.scenario)?;
    options.ensure_step_to_hold(&loaded)?;
    if options.engine == EngineKind::Namespaces {
        network::become_root()?;
    }
    ensure_possible(&loaded.runs, options.engine)?;
    network::end_tidily_on_signals(compose::end_own)?;
    sweep_dead();
    let keyferry = keyferry_binary()?;
    let image = (options.engine == EngineKind::Docker).then(|| Image::temporary(&keyferry)).transpose()?;
    let chosen = |index: &usize| options.choice.is_none_or(|choice| choice == *index);
    let chosen: Vec<usize> = (0..loaded.runs.len()).filter(chosen).collect();
    let total = chosen.len() as u64 * options.repeat;
    let mut outcomes = Vec::new();
    for index in chosen {
        for turn in 0..options.repeat {
            let mut scenario = loaded.runs[index].clone();
            scenario.seed = options.seed.unwrap_or(scenario.seed).wrapping_add(turn);
            let mut folder = Folder::new(options.keep.as_deref(), (total > 1).then(|| run_name(&scenario)))?;
            folder.keep_sources(&loaded.sources)?;
            // In containers, whoever has started them has said it.
            if !json && options.lab.is_none() {
                say(&headline(&scenario));
            }
            let outcome = match (&image, &options.lab) {
                (Some(image), _) => compose::run(&scenario, index, image.name(), folder.path(), json)?,
                (None, Some(lab)) => one(&scenario, Engine::beside(lab), &keyferry, &folder, options, json)?,
                (None, None) => one(&scenario, Engine::Namespaces, &keyferry, &folder, options, json)?,
            };
            let kept = folder.end(&outcome)?;
            print(&outcome, kept.as_deref(), json);
            outcomes.push(outcome);
        }
    }
    let held = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Held).count();
    if total > 1 {
        print_all(&outcomes, held, json);
    }
    Ok(held == outcomes.len())
}

/// Runs it once.
fn one(
    scenario: &Scenario,
    engine: Engine,
    keyferry: &Path,
    folder: &Folder,
    options: &Options,
    is_quiet: bool,
) -> Result<Outcome> {
    let began = SystemTime::now();
    let lab = Lab::build(scenario, engine, keyferry.to_owned(), folder.path()).context("the lab cannot be built")?;
    ensure_switches(scenario, &lab)?;
    // The time before the steps is not theirs: until then, another journal has what public nodes tell.
    let before = Arc::new(Journal::begin(&folder.path().join("public.jsonl"))?);
    let public = Processes::new(before.clone(), folder.path().join("logs"))?;
    start_public(scenario, &lab, &public, &before)?;

    let journal = Arc::new(Journal::begin(&folder.path().join(EVENTS))?);
    let processes = Processes::new(journal.clone(), folder.path().join("logs"))?;
    let (samples, sites) = (Samples::default(), scenario.sites.len());
    let stage = Stage { scenario, lab: &lab, processes: &processes, journal: &journal };
    let (done, end_s, expectations) = thread::scope(|scope| {
        scope.spawn(|| samples.take(&lab, sites, || journal.now_s()));
        let sampling = samples.until_dropped();
        let done = stage.perform(&|step| after_step(step, scenario, &lab, &journal, options, is_quiet));
        if done.broken.is_none() {
            wait_for_ends(scenario, &processes, &journal, &done.steps);
        }
        if options.hold == Some(None) {
            hold(scenario, &lab);
        }
        let end_s = journal.now_s();
        drop(sampling);
        let judge = Judge {
            scenario,
            lab: &lab,
            processes: &processes,
            journal: &journal,
            samples: &samples,
            steps: &done.steps,
            end_s,
        };
        let expectations = match &done.broken {
            None => judge.judge(),
            Some(_) => scenario.expectations.iter().map(|one| told(one, None, "was not judged".to_owned())).collect(),
        };
        (done, end_s, expectations)
    });
    // What runs on until the end is not what the end does to it.
    let told_of = scenario.processes.iter().map(|process| tell(process, scenario, &processes)).collect();
    processes.end();
    journal.flush()?;
    let (verdict, summary) = summary(scenario, &expectations, done.broken.as_deref());
    let names: Vec<&str> = scenario.sites.iter().map(|site| site.name.as_str()).collect();
    Ok(Outcome {
        format: FORMAT,
        scenario: scenario.name.clone(),
        question: scenario.question.clone(),
        values: scenario.values.iter().cloned().collect::<BTreeMap<_, _>>(),
        seed: scenario.seed,
        engine: options.engine.id().to_owned(),
        began: humantime::format_rfc3339_seconds(began).to_string(),
        took_seconds: end_s,
        verdict,
        summary,
        sites: scenario
            .sites
            .iter()
            .map(|site| words::site(site, &lab.network().outer_addresses(&site.name)))
            .collect(),
        links: scenario.links.iter().map(|link| words::link(link, scenario)).collect(),
        nodes: scenario
            .nodes
            .iter()
            .map(|node| words::node(node, scenario, &lab.network().addresses(&node.name)))
            .collect(),
        processes: told_of,
        steps: done.steps,
        expectations,
        lines: samples.lines(&names),
        figures: [figures::of_traffic(scenario, &journal), figures::of_strangers(scenario, &journal)].concat(),
    })
}

fn tell(process: &super::model::Process, scenario: &Scenario, processes: &Processes) -> outcome::Process {
    outcome::Process {
        name: process.name.clone(),
        node: scenario.nodes[process.node.0].name.clone(),
        command: processes.command(&process.name),
        runs: processes.runs(&process.name),
    }
}

fn start_public(scenario: &Scenario, lab: &Lab<'_>, public: &Processes, journal: &Journal) -> Result<()> {
    let count = scenario.rendezvous.nodes;
    (0..count).try_for_each(|index| public.start(&public_name(index), lab.public_command(index)))?;
    let up = super::model::EventMatch { event: Some("status".to_owned()), conditions: Vec::new() };
    let deadline = Instant::now() + START;
    for name in (0..count).map(public_name) {
        if journal.wait_for((&name, 1), 0.0, &up, deadline).is_none() {
            bail!("{name} is not up after {START:?}: {}", public.last_words(&name));
        }
    }
    Ok(())
}

/// Waits for the ends of processes that are judged by them, and for times that are judged as a whole; not beyond the limit.
fn wait_for_ends(scenario: &Scenario, processes: &Processes, journal: &Journal, steps: &[outcome::Step]) {
    let limit = journal.began() + scenario.limit;
    for expectation in &scenario.expectations {
        let (ending, until) = match &expectation.kind {
            ExpectationKind::Exit { processes, .. }
            | ExpectationKind::Took { processes, .. }
            | ExpectationKind::Stall { processes, .. }
            | ExpectationKind::ReceivedBeyond { processes, .. }
            | ExpectationKind::Slower { processes, .. }
            | ExpectationKind::AtLeastOk { processes, .. } => (&processes[..], None),
            ExpectationKind::NoEvent { window, .. } | ExpectationKind::NoPacket { window, .. } => {
                let begin_s = begin_of(*window, steps);
                (&[][..], window.within.map(|within| Duration::from_secs_f64(begin_s) + within))
            }
            ExpectationKind::Event { processes: telling, event, window } => {
                let begin_s = begin_of(*window, steps);
                let until =
                    window.within.map_or(limit, |within| journal.began() + Duration::from_secs_f64(begin_s) + within);
                for process in telling {
                    let name = &scenario.processes[process.0].name;
                    let starts = scenario.starts_of(*process);
                    journal.wait_for((name, starts), begin_s, event, until.min(limit));
                }
                (&[][..], None)
            }
            ExpectationKind::Traffic { to, .. } => (&[][..], Some(*to)),
            ExpectationKind::Same { .. } | ExpectationKind::Path { .. } | ExpectationKind::Memory { .. } => {
                (&[][..], None)
            }
        };
        for ProcessId(process) in ending {
            processes.wait_until_ended(&scenario.processes[*process].name, limit);
        }
        if let Some(until) = until {
            let until = (journal.began() + until).min(limit);
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

fn after_step(step: &Step, scenario: &Scenario, lab: &Lab<'_>, journal: &Journal, options: &Options, is_quiet: bool) {
    if !is_quiet {
        say(&format!("  {:7.1} s  {}", journal.now_s(), step.words));
    }
    if options.hold.as_ref().is_some_and(|held| held.as_deref() == Some(&step.name)) {
        hold(scenario, lab);
    }
}

/// Says how to enter each node, and waits for Ctrl-C.
fn hold(scenario: &Scenario, lab: &Lab<'_>) -> ! {
    println!("All is held as it is now. Ctrl-C ends it. To enter a node:");
    println!("  export KEYFERRY_BOOTSTRAP={}", lab.bootstrap());
    for (index, node) in scenario.nodes.iter().enumerate() {
        let shell = lab.network().command(&node.name, "sh");
        let words = std::iter::once(shell.get_program()).chain(shell.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        println!(
            "  {:12} {}    # its folder: {}",
            node.name,
            words.join(" "),
            lab.home(super::model::NodeId(index)).display()
        );
    }
    loop {
        thread::park();
    }
}

fn summary(scenario: &Scenario, expectations: &[outcome::Expectation], broken: Option<&str>) -> (Verdict, String) {
    if let Some(why) = broken {
        return (Verdict::Broken, format!("the run could not go on: {why}"));
    }
    let failed: Vec<_> = expectations.iter().filter(|expectation| expectation.held == Some(false)).collect();
    match failed.first() {
        None => (Verdict::Held, format!("all {} expectations held", scenario.expectations.len())),
        Some(first) => {
            let more = if failed.len() > 1 { format!(" (and {} more)", failed.len() - 1) } else { String::new() };
            (Verdict::Failed, format!("{}: expected: {}; seen: {}{more}", first.place, first.words, first.seen))
        }
    }
}

fn print(outcome: &Outcome, kept: Option<&Path>, json: bool) {
    if json {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
        return;
    }
    let verdict = match outcome.verdict {
        Verdict::Held => "held",
        Verdict::Failed => "FAILED",
        Verdict::Broken => "BROKEN",
    };
    println!("{verdict}: {}: {} ({:.1} s)", outcome.scenario, outcome.summary, outcome.took_seconds);
    for expectation in &outcome.expectations {
        let mark = match expectation.held {
            Some(true) => "ok  ",
            Some(false) => "NOT ",
            None => "?   ",
        };
        println!("  {mark}{}: {}", expectation.words, expectation.seen);
    }
    if let Some(kept) = kept {
        println!("  {}", kept.join(PAGE).display());
    }
}

fn print_all(outcomes: &[Outcome], held: usize, json: bool) {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Held).collect();
    if json {
        let seeds: Vec<_> =
            failed.iter().map(|outcome| json!({ "values": outcome.values, "seed": outcome.seed })).collect();
        println!("{}", json!({ "runs": outcomes.len(), "held": held, "failed": seeds }));
        return;
    }
    println!("{held} of {} runs held", outcomes.len());
    for outcome in failed {
        let values: Vec<String> = outcome.values.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        println!("  not with seed {}{}: {}", outcome.seed, values.concat(), outcome.summary);
    }
}

fn headline(scenario: &Scenario) -> String {
    let values: Vec<String> = scenario.values.iter().map(|(name, value)| format!("{name}={value}, ")).collect();
    format!("{} ({}seed {}): {}", scenario.name, values.concat(), scenario.seed, scenario.question)
}

/// A name for the folder of one of several runs.
fn run_name(scenario: &Scenario) -> String {
    let values = scenario.values.iter().map(|(name, value)| format!("-{name}-{value}"));
    let name = values.fold(scenario.name.clone(), |all, one| all + &one);
    let kept = |c: char| if c.is_ascii_alphanumeric() || "-.%".contains(c) { c } else { '-' };
    format!("{}-seed-{}", name.chars().map(kept).collect::<String>(), scenario.seed)
}

impl Options {
    fn ensure_step_to_hold(&self, loaded: &Loaded) -> Result<()> {
        if self.hold.is_some() && self.engine == EngineKind::Docker {
            let advice = "run the compose.yml of a kept run by hand, and enter its containers";
            return Err(Lacking::new(format!("--hold does not go with --engine docker; {advice}")).into());
        }
        let Some(Some(wanted)) = &self.hold else { return Ok(()) };
        let known: Vec<&str> = loaded.runs.iter().flat_map(|run| &run.steps).map(|step| step.name.as_str()).collect();
        if known.contains(&wanted.as_str()) {
            return Ok(());
        }
        Err(Lacking::new(format!("there is no step {wanted:?} to hold at; there are {}", known.join(", "))).into())
    }
}

/// Fails if this machine cannot run all of them.
fn ensure_possible(runs: &[Scenario], engine: EngineKind) -> Result<()> {
    ensure_clocks(runs)?;
    if engine == EngineKind::Docker {
        return Ok(compose::ensure_possible()?);
    }
    let mut programs = Vec::new();
    let restarts = |step: &Step| matches!(step.action, Action::RestartRouter { .. });
    if runs.iter().flat_map(|run| &run.steps).any(restarts) {
        programs.push("conntrack");
    }
    if runs.iter().flat_map(|run| &run.sites).any(|site| site.properties.upnp) {
        programs.push("miniupnpd");
    }
    network::ensure_possible(&programs)?;
    for process in runs.iter().flat_map(|run| &run.processes) {
        if let Program::Other(program) = &process.command.program
            && let Some(name) = program.plain()
            && !keyferry_needs::is_here(name)
        {
            return Err(
                Lacking::new(format!("{} wants to run {name}, which is not on this machine", process.name)).into()
            );
        }
    }
    Ok(())
}

/// Containers have the library from this machine.
fn ensure_clocks(runs: &[Scenario]) -> Result<(), Lacking> {
    let is_shifted = runs.iter().flat_map(|run| &run.nodes).any(|node| node.clock.seconds != 0);
    if is_shifted && !Path::new(FAKETIME).exists() {
        return Err(Lacking::new(format!("a clock is to be wrong, and there is no {FAKETIME} (Debian: faketime)")));
    }
    Ok(())
}

/// Without switches, hosts of one site do not find each other by multicast.
fn ensure_switches(scenario: &Scenario, lab: &Lab<'_>) -> Result<()> {
    let shared = |site: usize| scenario.nodes.iter().filter(|node| node.site == SiteId(site)).count() > 1;
    if !lab.network().has_switches() && (0..scenario.sites.len()).any(shared) {
        return Err(Lacking::new("several hosts of one site need a bridge; load the module bridge".to_owned()).into());
    }
    Ok(())
}

/// Says how far it is. That nobody reads it any more is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Removes what runs have left whose process is dead.
fn sweep_dead() {
    let left = network::sweep_dead();
    if left > 0 {
        say(&format!("removed {left} namespaces that an earlier run has left"));
    }
    compose::sweep_dead();
    disk::sweep_dead();
    folder::sweep_dead();
}
