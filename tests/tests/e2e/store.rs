//! The store from outside: list, remove, verify, collect, and an index that is only an index.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Event, RootInfo};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
    process::Outcome,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

#[test]
fn roots_are_listed_and_removed_and_the_files_stay() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 51, 300_000)?;
    content::random_tree(&lab.folder("tree")?, 52, 40)?;
    for path in ["a", "tree"] {
        lab.share("node", &lab.path(path))?.0.stop(SOON)?;
    }
    ensure!(names(&roots(&lab)?) == ["a", "tree"], "{:?}", roots(&lab)?);

    let removed = lab.run("node", ["store", "rm", "tree"])?;

    ensure!(matches!(removed.events.last(), Some(Event::Removed { .. })), "{removed:?}");
    ensure!(names(&roots(&lab)?) == ["a"], "{:?}", roots(&lab)?);
    ensure!(lab.path("tree/d1/e1/file 1").exists(), "a file seeded in place was removed");
    lab.run("node", ["store", "rm", "tree"])?.failure()?;
    Ok(())
}

#[test]
fn verify_finds_what_is_damaged() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 53, 300_000)?;
    content::random_file(&lab.path("b"), 54, 300_000)?;
    for path in ["a", "b"] {
        let mut process = lab.start("node", ["share".into(), "--copy".into(), lab.path(path).into_os_string()])?;
        process.wait_shared(TRANSFER)?;
        process.stop(SOON)?;
    }
    ensure!(verified(&lab)? == (2, 0), "{:?}", verified(&lab)?);
    flip_a_byte(&biggest_file(&lab.home("node"))?)?;

    let outcome = lab.run("node", ["store", "verify"])?;

    ensure!(outcome.events.iter().any(|event| matches!(event, Event::Damaged { .. })), "{outcome:#?}");
    ensure!(verified(&lab)? == (1, 1), "{:?}", verified(&lab)?);
    Ok(())
}

#[test]
fn garbage_collection_keeps_what_is_shared() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 55, 300_000)?;
    content::random_file(&lab.path("b"), 56, 300_000)?;
    for path in ["a", "b"] {
        let mut process = lab.start("node", ["share".into(), "--copy".into(), lab.path(path).into_os_string()])?;
        process.wait_shared(TRANSFER)?;
        process.stop(SOON)?;
    }
    lab.run("node", ["store", "rm", "a"])?;

    let outcome = lab.run("node", ["store", "gc"])?;

    let Some(Event::Collected { bytes, .. }) = outcome.events.last() else { bail!("{outcome:?}") };
    // Removing may have collected at once; then there is nothing left to do here.
    println!("collected {bytes} bytes");
    ensure!(verified(&lab)? == (1, 0), "{:?}", verified(&lab)?);
    let again = lab.run("node", ["store", "gc"])?;
    ensure!(matches!(again.events.last(), Some(Event::Collected { bytes: 0, .. })), "{again:?}");
    let (_sharer, _) = lab.node("node")?;
    Ok(())
}

#[test]
fn a_damaged_index_is_set_aside_and_rebuilt() -> Result<()> {
    let lab = Lab::new()?;
    let seed = std::env::var("KEYFERRY_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("KEYFERRY_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    content::random_file(&lab.path("a"), 57, 900_000)?;
    content::random_tree(&lab.folder("tree")?, 58, 80)?;
    for path in ["a", "tree"] {
        lab.share("node", &lab.path(path))?.0.stop(SOON)?;
    }
    let index = index_dir(&lab.home("node"))?;
    for round in 0..12 {
        for file in files_below(&index)? {
            let mut bytes = fs::read(&file)?;
            match round % 3 {
                0 => bytes.truncate(random.random_range(0..=bytes.len())),
                1 => (0..bytes.len().min(64)).for_each(|_| {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }),
                _ => random.fill(&mut bytes[..]),
            }
            fs::write(&file, bytes)?;
        }

        let (mut node, status) = lab.node("node").with_context(|| format!("round {round}"))?;

        ensure!(status.shared == 2, "round {round}: {status:?}");
        let out = lab.folder(format!("out{round}"))?;
        let hint = status.hints.first().context("a node that listens has a hint")?;
        let address = format!("keyferry:{}/tree?via={hint}", status.node);
        lab.get(&format!("getter{round}"), &address, &out)?.fetched().with_context(|| format!("round {round}"))?;
        content::same(&lab.path("tree"), &out.join("tree"))?;
        // The node says nothing unasked; what it may have said is in order.
        node.next_event(std::time::Instant::now()).ok();
        node.stop(SOON)?;
    }
    ensure!(verified(&lab)?.1 == 0, "{:?}", verified(&lab)?);
    Ok(())
}

#[test]
fn an_index_that_is_gone_is_rebuilt() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 59, 900_000)?;
    lab.share("node", &lab.path("a"))?.0.stop(SOON)?;
    fs::remove_dir_all(index_dir(&lab.home("node"))?)?;

    let (_node, status) = lab.node("node")?;

    let hint = status.hints.first().context("a node that listens has a hint")?;
    let address = format!("keyferry:{}/a?via={hint}", status.node);
    lab.get("getter", &address, &lab.folder("out")?)?.fetched()?;
    content::same(&lab.path("a"), &lab.path("out/a"))
}

#[test]
fn what_an_index_that_is_gone_had_and_is_not_there_any_more_is_named_once() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("tree")?, 60, 20)?;
    lab.share("node", &lab.path("tree"))?.0.stop(SOON)?;
    fs::remove_dir_all(index_dir(&lab.home("node"))?)?;
    fs::remove_file(lab.path("tree/d1/e1/file 1"))?;

    let told = notices(&lab.run("node", ["store", "ls"])?);

    ensure!(told.iter().any(|told| told.contains("the index was lost")), "{told:?}");
    ensure!(told.iter().any(|told| told.contains("gone") && told.contains("tree/d1/e1/file 1")), "{told:?}");
    ensure!(notices(&lab.run("node", ["store", "ls"])?).is_empty(), "told again");
    Ok(())
}

fn notices(outcome: &Outcome) -> Vec<String> {
    let notice = |event: &Event| if let Event::Notice { message } = event { Some(message.clone()) } else { None };
    outcome.events.iter().filter_map(notice).collect()
}

fn roots(lab: &Lab) -> Result<Vec<RootInfo>> {
    let outcome = lab.run("node", ["store", "ls"])?;
    let Some(Event::Roots { .. }) = outcome.events.last() else { bail!("{outcome:?}") };
    let root = |event: &Event| if let Event::Root(root) = event { Some(root.clone()) } else { None };
    Ok(outcome.events.iter().filter_map(root).collect())
}

fn names(roots: &[RootInfo]) -> Vec<String> {
    let mut names: Vec<_> = roots.iter().filter_map(|root| root.name().map(ToString::to_string)).collect();
    names.sort();
    names
}

/// Sound and damaged blobs, as `store verify` counts them.
fn verified(lab: &Lab) -> Result<(u64, u64)> {
    let outcome: Outcome = lab.run("node", ["store", "verify"])?;
    match outcome.events.last() {
        Some(Event::Verified { sound, damaged }) => Ok((*sound, *damaged)),
        _ => bail!("{outcome:?}"),
    }
}

/// sled's folder: the one that has a file `conf`.
fn index_dir(home: &Path) -> Result<std::path::PathBuf> {
    let conf = files_below(home)?.into_iter().find(|path| path.file_name().is_some_and(|name| name == "conf"));
    Ok(conf.context("no index in the data folder")?.parent().context("the index has a folder")?.to_owned())
}

fn biggest_file(dir: &Path) -> Result<std::path::PathBuf> {
    let index = index_dir(dir).ok();
    let candidates =
        files_below(dir)?.into_iter().filter(|path| index.as_ref().is_none_or(|dir| !path.starts_with(dir)));
    candidates.max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).context("no file")
}

fn files_below(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let (mut found, mut waiting) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { waiting.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

/// Damages a file without changing its size or its time of modification, as a bad disk does.
fn flip_a_byte(path: &Path) -> Result<()> {
    let modified = fs::metadata(path)?.modified()?;
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(path)?.permissions();
    use std::os::unix::fs::PermissionsExt;
    permissions.set_mode(0o600);
    fs::set_permissions(path, permissions)?;
    fs::write(path, bytes)?;
    fs::File::options().write(true).open(path)?.set_modified(modified)?;
    Ok(())
}
