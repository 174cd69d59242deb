//! Ways to a node: what `ping` and `status` tell of them, and a fetch that outlives the path it began on.
//!
//! What it is not: a test of NATs; see `keyferry-sim nat-matrix`.

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Event, FailureKind, PathClass, PathStrategy, StageName};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER, eventually},
    relay::{Fault, Relay},
};

#[test]
fn ping_tells_every_step_and_how_the_node_was_reached() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    let (_node, there) = lab.node("there")?;
    let args = ["ping", &there.node, "--count", "2"];

    // Its offer may still be on its way into the DHT.
    let outcome = eventually(SOON, || {
        let outcome = lab.run("here", args)?;
        ensure!(outcome.status.success(), "{outcome:?}");
        Ok(outcome)
    })?;

    let Some(Event::Pinged(pinged)) = outcome.events.last() else { bail!("{outcome:?}") };
    ensure!(pinged.node == there.node && there.listen.contains(&pinged.path.remote), "{pinged:?}, {there:?}");
    ensure!((pinged.path.path, pinged.path.strategy) == (PathClass::Direct, PathStrategy::Dialled), "{pinged:?}");
    let stages: Vec<StageName> = outcome
        .events
        .iter()
        .filter_map(|event| if let Event::PingStage(stage) = event { Some(stage.stage) } else { None })
        .collect();
    ensure!(stages == [StageName::Offer, StageName::Tls], "{stages:?}");
    let replies = outcome.events.iter().filter(|event| matches!(event, Event::PingReply(_))).count();
    ensure!(replies == 2 && pinged.round_trip.is_some_and(|trip| trip < pinged.total), "{outcome:?}");
    Ok(())
}

#[test]
fn a_node_that_cannot_be_reached_is_told_with_the_reason() -> Result<()> {
    let lab = Lab::new()?;
    let (node, there) = lab.node("there")?;
    let hinted = format!("keyferry:{}?via={}", there.node, there.hints.first().context("no hint")?);
    node.stop(SOON)?;

    let outcome = lab.run("here", ["ping", &hinted])?;

    let failure = outcome.failure()?;
    ensure!(failure.kind == FailureKind::Network && failure.message.contains("was not reached"), "{failure:?}");
    ensure!(failure.advice.is_some() && outcome.status.code() == Some(3), "{outcome:?}");
    let own = lab.run("there", ["ping", &there.node])?;
    ensure!(own.failure()?.kind == FailureKind::Usage, "{own:?}");
    Ok(())
}

#[test]
fn status_tells_where_the_node_can_be_reached_and_whose_calls_it_takes() -> Result<()> {
    let lab = Lab::new()?;
    let mut command = lab.command("node", ["node"])?;
    command.env("KEYFERRY_CALLS", "contacts");
    let mut node = keyferry_tests::process::Keyferry::start(command)?;
    node.wait_status(SOON)?;

    let told = eventually(SOON, || {
        let outcome = lab.run("node", ["status"])?;
        let Some(Event::Status(status)) = outcome.events.last() else { bail!("{outcome:?}") };
        ensure!(!status.candidates.is_empty(), "{status:?}");
        Ok(status.clone())
    })?;

    let passive = |candidate: &&keyferry::node::api::CandidateInfo| {
        candidate.kind == "host" && candidate.tcp_type == "passive" && told.listen.contains(&candidate.addr)
    };
    ensure!(told.candidates.iter().any(|candidate| passive(&candidate)), "{told:?}");
    ensure!(told.calls == "contacts" && told.paths.is_empty(), "{told:?}");
    Ok(())
}

#[test]
fn options_that_make_no_sense_are_refused_with_those_that_do() -> Result<()> {
    let lab = Lab::new()?;
    for (args, says) in [
        (["node", "--calls", "friends"], "everyone, contacts, nobody"),
        (["node", "--stun", "nonsense:port"], "--stun"),
        (["ping", "--count=many", "12D3KooW"], "--count"),
    ] {
        let output = lab.command("node", args)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(says), "{args:?}: {said}");
    }
    Ok(())
}

#[test]
fn contacts_are_added_listed_and_removed() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, there) = lab.node("there")?;
    let contacts = |args: &[&str]| lab.run("here", [&["contacts"], args].concat());

    let added = contacts(&["add", &there.node, "Ada"])?;
    let listed = contacts(&["ls"])?;
    let removed = contacts(&["rm", "Ada"])?;
    let gone = contacts(&["rm", "Ada"])?;

    ensure!(matches!(added.events.last(), Some(Event::ContactAdded(ada)) if ada.name == "Ada"), "{added:?}");
    let Some([Event::Contact(ada), Event::Contacts { count: 1 }]) = listed.events.last_chunk() else {
        bail!("{listed:?}")
    };
    ensure!(ada.node == there.node, "{listed:?}");
    ensure!(matches!(removed.events.last(), Some(Event::ContactRemoved(_))), "{removed:?}");
    ensure!(gone.failure()?.kind == FailureKind::Usage, "{gone:?}");
    Ok(())
}

#[test]
fn a_fetch_goes_on_after_its_path_broke() -> Result<()> {
    goes_on_after(Fault::Close)
}

#[test]
fn a_fetch_goes_on_after_its_path_died_without_a_word() -> Result<()> {
    goes_on_after(Fault::Silence)
}

/// Fetches over a path that has that fault after a part of the content, once.
fn goes_on_after(fault: Fault) -> Result<()> {
    const SIZE: u64 = 24 << 20;
    let lab = Lab::new()?;
    content::random_file(&lab.path("big"), 71, SIZE)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let port = shared.address_with_hints.to_string().rsplit('/').next().context("no hint")?.parse()?;
    let relay = Relay::start(port, SIZE / 4, fault)?;
    let address = format!("{}?via=/ip4/127.0.0.1/tcp/{}", shared.address, relay.port());

    let outcome = lab.start_get("getter", &address, &lab.folder("out")?)?.finish(TRANSFER)?;

    let fetched = outcome.fetched()?;
    ensure!(relay.accepted() >= 2, "one connection did it all: {outcome:?}");
    ensure!(fetched.received_bytes < SIZE + SIZE / 4, "it began anew: {fetched:?}");
    content::same(&lab.path("big"), &lab.path("out/big"))
}
