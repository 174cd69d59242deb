//! Getting a newer version: the commands, what they say, and what is there afterwards.

use std::{ffi::OsStr, fs};

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{ChangeCounts, ChangeInfo, ChangeKind, Compared, Event, FailureKind};
use keyferry_tests::{
    content,
    lab::{Lab, TRANSFER},
    process::{Keyferry, Outcome},
};

fn get(lab: &Lab, address: impl std::fmt::Display, options: &[&str]) -> Result<Outcome> {
    let mut command = lab.command("getter", ["get", &address.to_string(), "-o"])?;
    command.arg(lab.path("out")).args(options);
    Keyferry::start(command)?.finish(TRANSFER)
}

fn changes(outcome: &Outcome, of: ChangeKind) -> Vec<&str> {
    let of_kind = outcome.events.iter().filter_map(|event| match event {
        Event::Change(ChangeInfo { path, change }) if *change == of => Some(path.as_str()),
        _ => None,
    });
    of_kind.collect()
}

#[test]
fn a_newer_version_brings_what_changed_and_keeps_what_its_owner_changed() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    content::random_tree(&lab.folder("tree/many")?, 31, 200)?;
    for (name, content) in [("changes", "first"), ("edited", "first"), ("goes", "first")] {
        fs::write(tree.join(name), content)?;
    }
    let (_sharer, shared) = lab.share("sharer", &tree)?;
    let address = shared.address_with_hints;
    lab.folder("out")?;
    get(&lab, &address, &[])?.fetched()?;
    let again = get(&lab, &address, &[])?;
    let again = again.fetched()?;
    ensure!(again.was_there && again.received_bytes == 0, "{again:?}");
    fs::write(lab.path("out/tree/edited"), "by its owner")?;
    fs::remove_file(tree.join("goes"))?;
    for (name, content) in [("changes", "second"), ("edited", "second"), ("comes", "second")] {
        fs::write(tree.join(name), content)?;
    }
    let again = lab.run("sharer", [OsStr::new("share"), tree.as_os_str()])?;
    ensure!(again.status.success(), "{again:?}");

    let foretold = get(&lab, &address, &["--dry-run"])?;
    let Some(Event::Compared(Compared { changes: counts, .. })) = foretold.events.last() else { bail!("{foretold:?}") };
    ensure!(*counts == ChangeCounts { added: 1, replaced: 1, gone: 1, removed: 0, kept: 1 }, "{counts:?}");
    ensure!(changes(&foretold, ChangeKind::Kept) == ["edited"] && changes(&foretold, ChangeKind::Added) == ["comes"]);
    ensure!(!lab.path("out/tree/comes").exists());
    let kept = get(&lab, &address, &["--mirror"])?;

    let failure = kept.failure()?;
    ensure!(failure.kind == FailureKind::Usage && failure.message.contains("edited"), "{failure:?}");
    ensure!(changes(&kept, ChangeKind::Kept) == ["edited"]);
    ensure!(!lab.path("out/tree/goes").exists() && fs::read_to_string(lab.path("out/tree/comes"))? == "second");
    ensure!(fs::read_to_string(lab.path("out/tree/edited"))? == "by its owner");
    get(&lab, &address, &["--overwrite"])?.fetched()?;
    content::same(&tree, &lab.path("out/tree"))
}

#[test]
fn a_part_of_a_folder_is_listed_and_fetched_by_its_path() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    fs::create_dir_all(tree.join("a b/c"))?;
    for (name, content) in [("a b/one", "one"), ("a b/c/two", "two"), ("large", "")] {
        fs::write(tree.join(name), content)?;
    }
    content::random_file(&tree.join("large"), 41, 3_000_000)?;
    let (_sharer, shared) = lab.share("sharer", &tree)?;
    let whole = shared.address_with_hints.to_string();
    let (named, hints) = whole.split_once('?').context("hints")?;
    let at = |path: &str| format!("{named}/{path}?{hints}");
    lab.folder("out")?;

    let listed = lab.run("getter", ["ls", &at("a%20b")])?;
    let names = listed.events.iter().filter_map(|event| match event {
        Event::FolderEntry(entry) => Some((entry.name.as_str(), entry.size)),
        _ => None,
    });
    ensure!(names.eq([("c", 3), ("one", 3)]) && listed.status.success(), "{listed:?}");
    let root = lab.run("getter", ["ls", &whole])?;
    ensure!(matches!(root.events.last(), Some(Event::Listed { count: 2 })), "{root:?}");
    // As somebody would type it.
    let folder = get(&lab, at("a b/"), &[])?;
    let fetched = folder.fetched()?;
    ensure!(fetched.files == 2 && fetched.received_bytes < 10_000, "{fetched:?}");
    content::same(&tree.join("a b"), &lab.path("out/a b"))?;
    get(&lab, at("large"), &[])?.fetched()?;
    content::same(&tree.join("large"), &lab.path("out/large"))?;

    for (path, why) in [("a%20b/three", "there is no a b/three in it"), ("large/x", "there is no large/x in it")] {
        let refused = get(&lab, at(path), &[])?;
        let failure = refused.failure()?;
        ensure!(failure.kind == FailureKind::Usage && failure.message == why, "{failure:?}");
    }
    let refused = get(&lab, at("large"), &["--seed"])?;
    ensure!(refused.failure()?.kind == FailureKind::Usage);
    Ok(())
}

#[test]
fn the_same_command_means_the_same_place_though_a_folder_is_there_now() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    content::random_tree(&tree.join("many"), 43, 20)?;
    let (_sharer, shared) = lab.share("sharer", &tree)?;
    let (with_hints, out) = (shared.address_with_hints.to_string(), lab.path("holiday"));
    lab.get("getter", &with_hints, &out)?.fetched()?;
    content::same(&tree, &out)?;
    let again = lab.get("getter", &with_hints, &out)?;
    ensure!(again.fetched()?.was_there && again.fetched()?.path == out, "{again:?}");

    fs::write(tree.join("comes"), "second")?;
    let shared_again = lab.run("sharer", [OsStr::new("share"), tree.as_os_str()])?;
    ensure!(shared_again.status.success(), "{shared_again:?}");
    // The hints of an address are not what it names.
    let (named, hint) = with_hints.split_once("?via=").context("hints")?;
    let other_hint = hint.split('&').next().unwrap_or(hint);
    lab.get("getter", format!("{named}?via={other_hint}&via=/ip4/127.0.0.1/tcp/9"), &out)?.fetched()?;
    content::same(&tree, &out)?;
    // With a slash it is a folder that is meant.
    let into = lab.get("getter", &with_hints, &out.join(""))?;
    ensure!(into.fetched()?.path == out.join("tree"), "{into:?}");
    Ok(())
}
