//! A `get` waits for a sharer that is away, and goes on when it is back; one that was never there is given up soon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyferry::node::api::{Event, Shared, Waiting};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER, eventually},
    process::Keyferry,
};

const SIZE: u64 = 192 << 20;
/// What was on its way when the sharer died, and what proves the content, may come twice.
const SLACK: u64 = 8 << 20;
/// How soon a fetch goes on once the sharer is up again: the longest pause between two tries, and the time that a try takes.
const GOES_ON: Duration = Duration::from_secs(8);
/// How soon a node that nobody has heard of is given up.
const GIVEN_UP: Duration = Duration::from_secs(10);

fn waiting(get: &mut Keyferry, within: Duration) -> Result<Waiting> {
    get.wait_for(within, |event| if let Event::Waiting(waiting) = event { Some(waiting.clone()) } else { None })
}

/// Kills a sharer in the middle of a fetch, starts it again by `again`, and looks at how the fetch goes on.
fn goes_on(lab: &Lab, address: &str, sharer: Keyferry, shared: &Shared, again: &[&str]) -> Result<()> {
    let mut get = lab.start_get("getter", address, &lab.folder("out")?)?;
    get.wait_fetching(SIZE / 10, TRANSFER)?;
    sharer.kill()?;

    let lost = waiting(&mut get, TRANSFER)?;
    let mut sharer = lab.start("sharer", again)?;
    sharer.wait_status(SOON)?;
    let (back, before) = (Instant::now(), keyferry_tests::process::last_progress(get.seen()));
    get.wait_fetching(before + 1, TRANSFER)?;
    let went_on = back.elapsed();
    let outcome = get.finish(TRANSFER)?;

    let fetched = outcome.fetched()?;
    println!(
        "went on {went_on:?} after the sharer was up, from {before} of {SIZE}; {} received",
        fetched.received_bytes
    );
    ensure!(lost.until.is_some_and(|until| until.abs_diff(lost.since + 600) <= 1), "not ten minutes: {lost:?}");
    ensure!(before < SIZE, "it was complete before the sharer was killed: the content is too small");
    ensure!(went_on < GOES_ON, "after {went_on:?}");
    ensure!(fetched.resumed_bytes == 0 && fetched.received_bytes < SIZE + SLACK, "fetched twice: {fetched:?}");
    ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "wrong content");
    Ok(())
}

#[test]
fn heavy_a_get_goes_on_when_its_sharer_is_back_at_another_address() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("big"), 21, SIZE)?;
    let (sharer, shared) = lab.share("sharer", &lab.path("big"))?;

    goes_on(&lab, &shared.address.to_string(), sharer, &shared, &["node"])
}

#[test]
fn heavy_a_get_goes_on_when_its_sharer_is_back_where_the_address_says() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("big"), 22, SIZE)?;
    let (sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let address = shared.address_with_hints.to_string();
    let port = address.rsplit('/').next().context("an address ends in a port")?;

    goes_on(&lab, &address, sharer, &shared, &["node", "--listen", &format!("127.0.0.1:{port}")])
}

#[test]
fn a_sharer_that_is_away_is_waited_for_if_its_offer_is_there_unless_it_is_not_to_be() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 23, 100_000)?;
    let (sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address.to_string();
    let node = address.trim_start_matches("keyferry:").split('/').next().context("a node")?.to_owned();
    eventually(SOON, || {
        ensure!(lab.run("probe", ["ping", &node, "--count", "1"])?.status.success(), "its offer is not there yet");
        Ok(())
    })?;
    sharer.kill()?;

    let (begin, out) = (Instant::now(), lab.path("none"));
    let none = lab.start("hurried", ["get", &address, "--wait", "none", "-o", out.to_str().context("a path")?])?;
    let mut waits = lab.start_get("getter", &address, &lab.folder("out")?)?;
    let mut stopped = lab.start_get("stopped", &address, &lab.folder("out2")?)?;
    let failed = none.finish(SOON)?;
    let took = begin.elapsed();
    let told = waiting(&mut waits, SOON)?;
    waiting(&mut stopped, SOON)?;
    stopped.signal("INT")?;
    let interrupted = stopped.finish(Duration::from_secs(5))?;
    let (_sharer, _) = lab.node("sharer")?;
    let outcome = waits.finish(SOON)?;

    let (failure, interrupted) = (failed.failure()?, interrupted.failure()?);
    ensure!(failed.status.code() == Some(3) && took < GIVEN_UP, "{took:?}, {failure:?}");
    ensure!(failure.advice.as_ref().is_some_and(|advice| advice.contains("--wait none")), "{failure:?}");
    ensure!(told.whom == node && told.until.is_some_and(|until| until.abs_diff(told.since + 600) <= 1), "{told:?}");
    ensure!(interrupted.advice.as_ref().is_some_and(|advice| advice.contains("same command")), "{interrupted:?}");
    content::same(&lab.path("a"), &outcome.fetched()?.path)
}

#[test]
fn what_nobody_has_heard_of_is_given_up_within_ten_seconds_and_a_longer_wait_is_named() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    let nobody = keyferry_proto::identity::NodeSecret::from_bytes(&[9; 32]).public();
    let addresses = [format!("keyferry:{nobody}/a"), format!("keyferry:{}", "ab".repeat(32))];
    let alone = Lab::new()?;
    for address in addresses {
        let (begin, out) = (Instant::now(), lab.folder("out")?);
        let mut longer =
            lab.start("patient", ["get", &address, "--wait", "2m", "-o", out.to_str().context("a path")?])?;
        let get = lab.start_get("getter", &address, &out)?;
        let without_network = alone.start_get("getter", &address, &out)?;
        for get in [get, without_network] {
            let outcome = get.finish(SOON)?;
            let (took, failure) = (begin.elapsed(), outcome.failure()?);
            println!("{took:?}: {} (try: {:?})", failure.message, failure.advice);
            ensure!(outcome.status.code() == Some(3) && took < GIVEN_UP, "{took:?}: {failure:?}");
            ensure!(failure.advice.as_ref().is_some_and(|advice| advice.contains("--wait 10m")), "{failure:?}");
        }
        let told = waiting(&mut longer, SOON)?;
        longer.signal("INT")?;
        ensure!(longer.finish(SOON)?.status.code() == Some(130));
        ensure!(told.until.is_some_and(|until| until.abs_diff(told.since + 120) <= 1), "{told:?}");
    }
    Ok(())
}

#[test]
fn whoever_is_alone_on_the_network_hears_it_before_the_search_ends() -> Result<()> {
    let lab = Lab::new()?;
    let nobody = "keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
    let of_solitude =
        |event: &Event| matches!(event, Event::Notice { message } if message.contains("--bootstrap")).then_some(());
    for args in [&["get", &format!("{nobody}/x")][..], &["ls", nobody]] {
        let mut command = lab.start("alone", args)?;
        command.wait_for(SOON, of_solitude)?;
        command.finish(TRANSFER)?.failure()?;
    }

    // And nobody hears it who is not.
    content::random_file(&lab.path("a"), 24, 1000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address_with_hints.to_string().replace("/a?", "/b?");
    let outcome = lab.run("alone", ["get", &address, "--wait", "none"])?;
    outcome.failure()?;
    ensure!(!outcome.events.iter().any(|event| of_solitude(event).is_some()), "{outcome:?}");
    Ok(())
}
