//! A fetch survives `kill -9` of either side at any moment and goes on from what had been verified.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keyferry::node::api::Event;
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER, eventually},
    process::last_progress,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What has to be kept of what a killed getter had verified.
const KEPT: f64 = 0.95;

const ROUNDS: u64 = 20;
const SIZE: u64 = 192 << 20;

/// The seed of the kill points: of the environment, to repeat a failure, or new each time. It is printed.
fn seed() -> u64 {
    let given = std::env::var("KEYFERRY_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("KEYFERRY_TEST_SEED={seed}");
    seed
}

#[test]
fn heavy_a_killed_getter_goes_on_from_what_it_had() -> Result<()> {
    let lab = Lab::new()?;
    let mut random = StdRng::seed_from_u64(seed());
    content::random_file(&lab.path("big"), 11, SIZE)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let (getter, out) = (format!("getter{round}"), lab.folder(format!("out{round}"))?);
        let point = random.random_range(SIZE / 20..SIZE * 7 / 10);
        let mut process = lab.start_get(&getter, &shared.address_with_hints, &out)?;
        process.wait_fetching(point, TRANSFER)?;
        let events = process.kill()?;
        let complete = events.iter().any(|event| matches!(event, Event::Fetched(_)));
        let verified = last_progress(&events);

        let outcome = lab.get(&getter, &shared.address_with_hints, &out)?;

        // Killed between the last byte and the word of it: what is there is whole, and a second fetch finds it there.
        if complete || (verified == SIZE && out.join("big").exists()) {
            ensure!(content::hash_file(&out.join("big"))? == blake3::Hash::from(shared.hash), "round {round}: wrong");
            continue;
        }
        cut_short += 1;
        let fetched = outcome.fetched().with_context(|| format!("round {round}, killed at {verified}"))?;
        println!("round {round}: killed at {verified} of {SIZE}, kept {}", fetched.resumed_bytes);
        ensure!(fetched.resumed_bytes as f64 >= KEPT * verified as f64, "round {round}: {verified}, {fetched:?}");
        ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "round {round}: wrong content");
        sound(&lab, &getter)?;
        std::fs::remove_dir_all(&out)?;
        std::fs::remove_dir_all(lab.home(&getter))?;
    }
    ensure!(cut_short >= ROUNDS / 4, "only {cut_short} of {ROUNDS} were cut short: the file is too small to tell");
    Ok(())
}

#[test]
fn heavy_a_getter_of_a_folder_that_is_killed_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let mut random = StdRng::seed_from_u64(seed());
    content::random_tree(&lab.folder("tree")?, 12, 1500)?;
    content::random_file(&lab.path("tree/big"), 13, SIZE / 2)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    for round in 0..4 {
        let (getter, out) = (format!("getter{round}"), lab.folder(format!("out{round}"))?);
        let mut process = lab.start_get(&getter, &shared.address_with_hints, &out)?;
        process.wait_fetching(random.random_range(shared.size / 20..shared.size * 8 / 10), TRANSFER)?;
        let events = process.kill()?;
        let (complete, verified) = (events.iter().any(|e| matches!(e, Event::Fetched(_))), last_progress(&events));

        let outcome = lab.get(&getter, &shared.address_with_hints, &out)?;

        if !complete {
            let fetched = outcome.fetched().with_context(|| format!("round {round}, killed at {verified}"))?;
            println!("round {round}: killed at {verified} of {}, kept {}", shared.size, fetched.resumed_bytes);
            ensure!(fetched.resumed_bytes as f64 >= KEPT * verified as f64, "round {round}: {verified}, {fetched:?}");
            content::same(&lab.path("tree"), &fetched.path)?;
            sound(&lab, &getter)?;
        }
    }
    Ok(())
}

#[test]
fn heavy_a_killed_sharer_that_comes_back_is_enough() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    let mut random = StdRng::seed_from_u64(seed());
    content::random_file(&lab.path("big"), 14, SIZE)?;
    for round in 0..6 {
        let (getter, out) = (format!("getter{round}"), lab.folder(format!("out{round}"))?);
        let (sharer, shared) = lab.share("sharer", &lab.path("big"))?;
        let mut process = lab.start_get(&getter, &shared.address, &out)?;
        process.wait_fetching(random.random_range(SIZE / 20..SIZE * 8 / 10), TRANSFER)?;
        sharer.kill()?;
        let (sharer, _) = lab.node("sharer")?;
        let first = process.finish(TRANSFER)?;

        // It may have waited for the sharer to come back; or it gave up, and a person starts it again.
        let had = first.last_progress();
        let (mut kept, mut result) = (had, first.fetched().cloned().ok());
        if result.is_none() {
            ensure!(first.status.code() == Some(3), "not a failure of the network: {:?}", first.events.last());
            let fetched = eventually(SOON, || Ok(lab.get(&getter, &shared.address, &out)?.fetched()?.clone()))?;
            kept = fetched.resumed_bytes;
            result = Some(fetched);
        }

        let fetched = result.context("there is a result by now")?;
        println!("round {round}: sharer killed, getter had {had} of {SIZE}, kept {kept}");
        ensure!(kept as f64 >= KEPT * had as f64, "round {round}: {had}, {fetched:?}");
        ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "round {round}: wrong content");
        sound(&lab, &getter)?;
        sharer.stop(SOON)?;
        sound(&lab, "sharer")?;
    }
    Ok(())
}

#[test]
fn a_fetch_that_is_complete_is_not_fetched_again() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 15, 1_000_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.fetched()?;

    let into = lab.folder("again")?;
    let outcome = lab.get("getter", &shared.address_with_hints, &into)?;

    let fetched = outcome.fetched()?;
    ensure!(fetched.received_bytes < 100_000, "fetched again: {fetched:?}");
    content::same(&lab.path("a"), &into.join("a"))
}

fn sound(lab: &Lab, node: &str) -> Result<()> {
    let outcome = lab.start(node, ["store", "verify"])?.finish(Duration::from_secs(60))?;
    let Some(Event::Verified { damaged: 0, .. }) = outcome.events.last() else {
        anyhow::bail!("{node}: the store is not sound: {outcome:#?}");
    };
    Ok(())
}
