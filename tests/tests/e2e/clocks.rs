//! Nodes whose clock is wrong, and one whose clock is set while it runs. The clock is that of a small library in front of libc
//! (`shifted_clock.c`), and the shift a number in a file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use keyferry::control::{Diagnosis, Event};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER, eventually},
    process::Keyferry,
};

const HOUR: i64 = 3600;
/// So wrong that offers by such a clock are not taken.
const THREE_DAYS: i64 = 72 * HOUR;
/// How soon a node is found whose clock was set right: a look at the clock, and putting the offer.
const FOUND_AGAIN: Duration = Duration::from_secs(10);

/// A clock that a test shifts.
struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// None if it cannot be made here.
    fn new(lab: &Lab) -> Result<Option<Self>> {
        if keyferry_needs::lacks(&["cc"]) {
            return Ok(None);
        }
        let library = lab.path("shifted_clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/shifted_clock.c");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status()?;
        ensure!(made.success(), "cc has failed");
        let clock = Self { library, shift: lab.path("shift") };
        fs::write(&clock.shift, 0_i64.to_ne_bytes())?;
        Ok(Some(clock))
    }

    /// Sets it, for those that run as well.
    fn set(&self, seconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        Ok(fs::OpenOptions::new().write(true).open(&self.shift)?.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// Starts `keyferry --json ARGS` of a node by this clock.
    fn start(&self, lab: &Lab, node: &str, args: &[&str]) -> Result<Keyferry> {
        let mut command = lab.command(node, args)?;
        command.env("LD_PRELOAD", &self.library).env("KEYFERRY_TEST_SHIFT", &self.shift);
        Keyferry::start(command)
    }
}

fn diagnosis(events: &[Event]) -> Result<&Diagnosis> {
    let found = events.iter().find_map(|event| if let Event::Diagnosed(found) = event { Some(&**found) } else { None });
    found.context("no diagnosis")
}

#[test]
fn a_wrong_clock_is_named_by_whoever_finds_nothing_because_of_it() -> Result<()> {
    let mut lab = Lab::new()?;
    let Some(clock) = Clock::new(&lab)? else { return Ok(()) };
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 31, 1000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let key = shared.address.node().context("an address has a node")?.to_string();
    clock.set(THREE_DAYS)?;

    let doctor = clock.start(&lab, "doctor", &["doctor"])?;
    let pinged = clock.start(&lab, "getter", &["ping", "--count", "1", &key])?.finish(TRANSFER)?;
    let diagnosed = doctor.finish(TRANSFER)?;

    let failure = pinged.failure()?;
    ensure!(
        failure.message.contains("this machine's clock is 3 d 0 h ahead of the clock of another host"),
        "{failure:?}"
    );
    ensure!(failure.advice.as_ref().is_some_and(|advice| advice.contains("set this machine's clock")), "{failure:?}");
    let found = diagnosis(&diagnosed.events)?;
    ensure!(found.clock.is_some_and(|skew| skew.ahead_secs.abs_diff(THREE_DAYS) <= 60), "{found:?}");
    ensure!(found.verdict.advice.iter().any(|advice| advice.contains("set this machine's clock")), "{found:?}");
    Ok(())
}

#[test]
fn a_sharer_whose_clock_was_wrong_is_found_within_seconds_of_its_being_set() -> Result<()> {
    let mut lab = Lab::new()?;
    let Some(clock) = Clock::new(&lab)? else { return Ok(()) };
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 32, 1000)?;
    clock.set(-THREE_DAYS)?;
    let path = lab.path("a");
    let mut sharer = clock.start(&lab, "sharer", &["share", path.to_str().context("a path in UTF-8")?])?;
    let shared = sharer.wait_shared(SOON)?;
    let key = shared.address.node().context("an address has a node")?.to_string();
    let told = sharer.wait_for(SOON, |event| match event {
        Event::Notice { message } if message.contains("clock") => Some(message.clone()),
        _ => None,
    })?;
    ensure!(told.contains("this machine's clock is 3 d 0 h behind the clock of another host"), "{told}");
    let ping = || lab.run("getter", ["ping", "--count", "1", &key]);
    let before = ping()?;
    ensure!(!before.status.success(), "an offer that has expired was taken");

    clock.set(0)?;
    let set = Instant::now();
    eventually(FOUND_AGAIN, || {
        ensure!(ping()?.status.success(), "not found");
        Ok(())
    })?;
    println!("found {:?} after its clock was set", set.elapsed());
    Ok(())
}

#[test]
fn a_sharer_is_found_by_key_whose_clock_is_set_to_and_fro_within_a_day() -> Result<()> {
    let mut lab = Lab::new()?;
    let Some(clock) = Clock::new(&lab)? else { return Ok(()) };
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 33, 1000)?;
    let path = lab.path("a");
    clock.set(20 * HOUR)?;
    let mut sharer = clock.start(&lab, "sharer", &["share", path.to_str().context("a path in UTF-8")?])?;
    let shared = sharer.wait_shared(SOON)?;
    let key = shared.address.node().context("an address has a node")?.to_string();
    // The last one is right: what was published before, by a clock that was ahead, hides nothing.
    for hours in [20, -20, 2, -2, 24, -24, 0] {
        clock.set(hours * HOUR)?;
        eventually(FOUND_AGAIN, || {
            let pinged = lab.run("getter", ["ping", "--count", "1", &key])?;
            ensure!(pinged.status.success(), "not found, {hours} h ahead");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn whoever_has_a_clock_that_is_up_to_a_day_wrong_finds_others_by_key() -> Result<()> {
    let mut lab = Lab::new()?;
    let Some(clock) = Clock::new(&lab)? else { return Ok(()) };
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 34, 1000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let key = shared.address.node().context("an address has a node")?.to_string();
    for hours in [2, -2, 20, -20, 24, -24] {
        clock.set(hours * HOUR)?;
        let pinged = clock.start(&lab, "getter", &["ping", "--count", "1", &key])?.finish(TRANSFER)?;
        ensure!(pinged.status.success(), "not found by a clock {hours} h ahead: {:?}", pinged.failure());
    }
    Ok(())
}
