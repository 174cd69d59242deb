//! Folders arrive as they are: rsync, which carries everything that a file system has, finds nothing to do between both.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use keyferry::node::api::{Event, FailureKind};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
    process::Keyferry,
};

/// What rsync would do to make the target what the source is, in its words: to bytes, times, links, folders, and who may run what.
fn differences(source: &Path, target: &Path) -> Result<String> {
    let mut command = Command::new("rsync");
    command.args(["--recursive", "--links", "--times", "--omit-link-times", "--modify-window=-1", "--executability"]);
    command
        .args(["--checksum", "--delete", "--dry-run", "--itemize-changes"])
        .arg(source.join(""))
        .arg(target.join(""));
    let output = command.output().context("cannot run rsync")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(mode))?)
}

fn set_time(path: &Path, nanos: u64) -> Result<()> {
    Ok(File::open(path)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))?)
}

/// A tree of everything odd that a file system may have.
fn odd_tree(tree: &Path) -> Result<()> {
    let names: [&[u8]; 15] = [
        b"caf\xe9",
        b"12:30.log",
        b"aux.c",
        b"what?",
        b"a\\b",
        b"trailing.",
        b"trailing ",
        b"Icon\r",
        b"README",
        b"readme",
        "\u{fc}".as_bytes(),
        "u\u{308}".as_bytes(),
        b"100%41",
        b"\x1b[2J",
        b"-rf",
    ];
    for (number, name) in names.iter().enumerate() {
        fs::write(tree.join(OsStr::from_bytes(name)), format!("{number}"))?;
    }
    content::random_file(&tree.join("x".repeat(255)), 91, 100_000)?;
    fs::create_dir_all(tree.join("empty/also empty"))?;
    fs::create_dir_all(tree.join(OsStr::from_bytes(b"t\xe9l/x")))?;
    content::random_file(&tree.join(OsStr::from_bytes(b"t\xe9l/x/large")), 92, 300_000)?;
    fs::copy(tree.join(OsStr::from_bytes(b"t\xe9l/x/large")), tree.join("same as large"))?;
    fs::write(tree.join("nothing"), b"")?;
    fs::create_dir(tree.join("closed"))?;
    fs::write(tree.join("closed/key"), b"key")?;
    chmod(&tree.join("closed/key"), 0o600)?;
    chmod(&tree.join("closed"), 0o700)?;
    fs::write(tree.join("run"), b"#!/bin/sh\n")?;
    chmod(&tree.join("run"), 0o755)?;
    symlink("run", tree.join("link"))?;
    symlink("../closed/key", tree.join("empty/link up"))?;
    symlink("nowhere", tree.join("dangling"))?;
    set_time(&tree.join("run"), 1_000_000_000_123_456_789)?;
    set_time(&tree.join("empty"), 1_234_567_890_000_000_001)?;
    set_time(tree, 1_500_000_000_000_000_000)
}

#[test]
fn a_tree_of_everything_odd_arrives_as_it_is() -> Result<()> {
    if keyferry_needs::lacks(&["rsync"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    odd_tree(&lab.folder("tree")?)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;

    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;
    let fetched = outcome.fetched()?;

    let found = differences(&lab.path("tree"), &fetched.path)?;
    ensure!(found.is_empty(), "{found}");
    let mode =
        |path: &str| Ok::<u32, std::io::Error>(fs::metadata(fetched.path.join(path))?.permissions().mode() & 0o777);
    ensure!((mode("closed")?, mode("closed/key")?) == (0o700, 0o600), "others may read what is private");
    ensure!(
        lab.get("getter", &shared.address_with_hints, &lab.path("out"))?.fetched()?.was_there,
        "it was fetched again"
    );
    Ok(())
}

#[test]
fn a_single_file_keeps_its_time_and_rights() -> Result<()> {
    let lab = Lab::new()?;
    fs::write(lab.path("run"), b"#!/bin/sh\n")?;
    chmod(&lab.path("run"), 0o700)?;
    set_time(&lab.path("run"), 1_000_000_000_123_456_789)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("run"))?;

    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;
    let fetched = outcome.fetched()?;

    let found = fs::metadata(&fetched.path)?;
    ensure!(found.permissions().mode() & 0o777 == 0o700, "{:o}", found.permissions().mode());
    ensure!(found.modified()? == fs::metadata(lab.path("run"))?.modified()?, "another time");
    Ok(())
}

#[test]
fn what_cannot_be_shared_is_left_out_and_listed_and_strict_refuses() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    fs::write(tree.join("good"), b"good")?;
    symlink("/etc/hostname", tree.join("out"))?;
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket"))?;

    let mut strict = lab.command("sharer", ["share", "--strict"])?;
    strict.arg(&tree);
    let refused = Keyferry::start(strict)?.finish(SOON)?;
    ensure!(refused.failure()?.kind == FailureKind::Usage, "{refused:?}");
    let told = |events: &[Event]| {
        let notices = events
            .iter()
            .filter(|event| matches!(event, Event::Notice { message } if message.starts_with("left out ")));
        notices.count()
    };
    ensure!(told(&refused.events) == 2, "{:?}", refused.events);

    let (_sharer, shared) = lab.share("sharer", &tree)?;
    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;
    let fetched = outcome.fetched()?;
    let found: Vec<_> = fs::read_dir(&fetched.path)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    ensure!(found == ["good"], "{found:?}");
    Ok(())
}

#[test]
fn two_things_of_one_name_are_refused_before_anything_is_read() -> Result<()> {
    let lab = Lab::new()?;
    for folder in ["a", "b"] {
        fs::create_dir(lab.path(folder))?;
        fs::write(lab.path(folder).join("data"), folder)?;
    }
    let mut both = lab.command("sharer", ["share"])?;
    both.args([lab.path("a/data"), lab.path("b/data")]);
    let refused = Keyferry::start(both)?.finish(SOON)?;
    let message = refused.failure()?.message.clone();
    ensure!(message.contains("a/data") && message.contains("b/data"), "{message}");

    let (sharer, shared) = lab.share("sharer", &lab.path("a/data"))?;
    sharer.stop(SOON)?;
    let mut other = lab.command("sharer", ["share"])?;
    other.arg(lab.path("b/data"));
    let refused = Keyferry::start(other)?.finish(SOON)?;
    ensure!(refused.failure()?.message.contains("a/data"), "{refused:?}");
    // The same path again is a newer version of it.
    fs::write(lab.path("a/data"), b"newer")?;
    let (sharer, again) = lab.share("sharer", &lab.path("a/data"))?;
    ensure!(again.name == shared.name && again.hash != shared.hash, "{again:?}");
    sharer.stop(SOON)?;
    // What was moved is shared from where it is now.
    fs::rename(lab.path("a"), lab.path("moved"))?;
    let (_sharer, moved) = lab.share("sharer", &lab.path("moved/data"))?;
    ensure!(moved.hash == again.hash, "{moved:?}");
    Ok(())
}

#[test]
fn a_file_whose_name_is_no_text_is_shared_under_one_that_can_be_typed() -> Result<()> {
    let lab = Lab::new()?;
    let path = lab.path("x").with_file_name(OsStr::from_bytes(b"caf\xe9: au lait"));
    fs::write(&path, b"coffee")?;
    let (_sharer, shared) = lab.share("sharer", &path)?;
    ensure!(shared.name.as_str() == "caf__ au lait", "{}", shared.name);
    let mut get = lab.command("getter", ["get", &shared.address_with_hints.to_string(), "-o"])?;
    get.arg(lab.folder("out")?);
    let outcome = Keyferry::start(get)?.finish(TRANSFER)?;
    let fetched = outcome.fetched()?;
    ensure!(fs::read(&fetched.path)? == b"coffee", "not what was shared");
    Ok(())
}

#[test]
fn what_is_excluded_is_not_shared_and_not_told() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    for path in ["a.txt", "a.tmp", "build/x", "sub/secret", "sub/kept"] {
        fs::create_dir_all(tree.join(path).parent().context("it has one")?)?;
        fs::write(tree.join(path), path)?;
    }
    fs::write(tree.join("sub/.keyferryignore"), "secret\n")?;
    let mut share = lab.command("sharer", ["share", "--exclude", "*.tmp", "--exclude", "/build/"])?;
    share.arg(&tree);
    let mut sharer = Keyferry::start(share)?;
    let shared = sharer.wait_shared(TRANSFER)?;

    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;

    let fetched = outcome.fetched()?;
    let mut found: Vec<_> = walkdir(&fetched.path)?;
    found.sort();
    ensure!(found == ["a.txt", "sub", "sub/.keyferryignore", "sub/kept"], "{found:?}");
    Ok(())
}

fn walkdir(folder: &Path) -> Result<Vec<String>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            found.push(path.strip_prefix(folder)?.to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}
