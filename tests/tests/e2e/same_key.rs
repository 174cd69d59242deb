//! Two nodes under one key, as when a machine is cloned or a backup restored beside it: both owners are told. A node that comes after
//! another one on the same data folder is not two.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use keyferry::control::{Event, FailureKind, SameKeyInfo, SameKeySeen};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
    process::Keyferry,
};

/// How soon both owners are told.
const TOLD: Duration = Duration::from_secs(15);
/// When a node has looked for others twice: as it starts, and 5 s after it has published its first offer.
const LOOKED_TWICE: Duration = Duration::from_secs(8);

fn same_key(event: &Event) -> Option<SameKeyInfo> {
    if let Event::SameKey(info) = event { Some(info.clone()) } else { None }
}

/// Copies a data folder that nobody uses.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Waits until a process has run for so long, and says whether it has told of another node with its key.
fn tells_of_another(process: &mut Keyferry, until: Instant) -> bool {
    while process.next_event(until).is_ok_and(|event| event.is_some()) {}
    process.seen().iter().any(|event| same_key(event).is_some())
}

#[test]
fn both_owners_of_one_key_are_told_once_until_one_has_a_key_of_its_own() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 61, 1000)?;
    let (first, shared) = lab.share("first", &lab.path("a"))?;
    let key = shared.address.node().context("an address has a node")?.to_string();
    first.stop(SOON)?;
    for copy in ["second", "third"] {
        copy_folder(&lab.home("first"), &lab.home(copy))?;
    }
    let (mut first, status) = lab.node("first")?;

    let began = Instant::now();
    let mut second = lab.start("second", ["node"])?;
    let at_first = first.wait_for(TOLD, same_key)?;
    let at_second = second.wait_for(TOLD.saturating_sub(began.elapsed()), same_key)?;
    println!("told after {:?}: {at_first:?}, {at_second:?}", began.elapsed());

    ensure!(at_first.node == key && at_second.node == key, "another key is named");
    ensure!(at_first.key_file == lab.home("first").join("identity.key"), "{at_first:?}");
    // Whoever has dialled says where, and the other from where.
    let second_status = second.seen().iter().find_map(|event| match event {
        Event::Status(status) => Some(status.listen.clone()),
        _ => None,
    });
    let names = |info: &SameKeyInfo, listen: &[SocketAddr]| match info.seen {
        SameKeySeen::At(addr) => listen.contains(&addr),
        SameKeySeen::From(host) => host.is_loopback(),
        SameKeySeen::ByCall | SameKeySeen::ByOffer => false,
    };
    let listen = second_status.context("the second is up")?;
    ensure!(names(&at_first, &listen) && names(&at_second, &status.listen), "{at_first:?}, {at_second:?}");
    let is_dialled = |info: &SameKeyInfo| matches!(info.seen, SameKeySeen::At(_));
    ensure!(is_dialled(&at_first) || is_dialled(&at_second), "{at_first:?}, {at_second:?}");
    let asked = lab.run("second", ["status"])?;
    let state =
        asked.events.iter().find_map(|event| if let Event::Status(status) = event { Some(status) } else { None });
    ensure!(state.context("no status")?.same_key.as_ref().is_some_and(|info| names(info, &status.listen)), "{state:?}");

    // Who only asks for its own key is told as well.
    let pinged = lab.run("third", ["ping", "--count", "1", &key])?;
    let failure = pinged.failure()?;
    ensure!(
        failure.kind == FailureKind::Usage && failure.message.contains("another running node has it"),
        "{failure:?}"
    );
    for (name, process) in [("first", first), ("second", second)] {
        let outcome = process.stop(SOON)?;
        let told = outcome.events.iter().filter_map(same_key).count();
        ensure!(told == 1, "{name} was told {told} times");
    }

    // What they are told to do helps.
    fs::rename(lab.home("second").join("identity.key"), lab.path("old.key"))?;
    let (mut second, renewed) = lab.node("second")?;
    ensure!(renewed.node != key && renewed.shared == 1, "{renewed:?}");
    let (_first, _) = lab.node("first")?;
    ensure!(!tells_of_another(&mut second, Instant::now() + LOOKED_TWICE), "{:?}", second.seen());
    Ok(())
}

#[test]
fn a_node_that_follows_another_on_its_folder_is_not_taken_for_two() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_meeting, status) = lab.node("meeting")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("a"), 62, 1000)?;
    let (sharer, shared) = lab.share("node", &lab.path("a"))?;
    // Its offer is in the DHT.
    let fetched = lab.get("getter", &shared.address, &lab.folder("out")?)?;
    fetched.fetched()?;
    sharer.kill()?;
    let (killed, _) = lab.share("node", &lab.path("a"))?;
    killed.stop(SOON)?;
    let (mut last, _) = lab.share("node", &lab.path("a"))?;
    // A backup from before the last offers, by whose numbers they are nobody's.
    last.signal("KILL")?;
    ensure!(!tells_of_another(&mut last, Instant::now() + TRANSFER), "{:?}", last.seen());
    fs::write(lab.home("node").join("sequence"), "1\n")?;

    let mut restored = lab.start("node", ["node"])?;
    restored.wait_status(SOON)?;
    ensure!(!tells_of_another(&mut restored, Instant::now() + LOOKED_TWICE), "{:?}", restored.seen());
    restored.stop(SOON)?;
    Ok(())
}
