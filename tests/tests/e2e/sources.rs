//! What is shared in place can change under the sharer's feet: it is noticed, said, and never served wrong.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
};

use anyhow::{Result, ensure};
use keyferry::node::api::Event;
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
    process::Keyferry,
};

#[test]
fn a_file_that_changed_since_is_not_served() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 31, 400_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    content::random_file(&lab.path("a"), 32, 400_001)?;

    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;

    let failure = outcome.failure()?;
    ensure!(failure.message.contains("changed"), "says not why: {failure:?}");
    content::unfinished(&lab.path("out"))
}

#[test]
fn a_file_that_vanished_since_is_not_served() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 33, 400_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    fs::remove_file(lab.path("a"))?;

    lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.failure()?;

    content::unfinished(&lab.path("out"))
}

#[test]
fn the_rest_of_a_folder_whose_one_file_changed_is_still_there_to_resume() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("tree")?, 34, 100)?;
    let (sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let victim = lab.path("tree/d3/e3/file 3");
    let (original, time) = (fs::read(&victim)?, fs::metadata(&victim)?.modified()?);
    fs::write(&victim, b"something else")?;

    let failed = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;
    failed.failure()?;

    // The owner puts it back and shares again: only what is missing is sent. The rest of the folder is in its place already.
    fs::write(&victim, original)?;
    fs::File::open(&victim)?.set_modified(time)?;
    sharer.stop(SOON)?;
    let (_sharer, again) = lab.share("sharer", &lab.path("tree"))?;
    ensure!(again.hash == shared.hash, "another hash for the same content");
    let mut command = lab.command("getter", ["get", &again.address_with_hints.to_string(), "--overwrite", "-o"])?;
    command.arg(lab.folder("out")?);
    let outcome = Keyferry::start(command)?.finish(TRANSFER)?;
    let fetched = outcome.fetched()?;
    content::same(&lab.path("tree"), &fetched.path)?;
    ensure!(fetched.resumed_bytes > 0, "nothing was kept: {fetched:?}");
    Ok(())
}

#[test]
fn heavy_a_file_that_changes_while_it_is_sent_never_arrives_wrong() -> Result<()> {
    let lab = Lab::new()?;
    const SIZE: u64 = 160 << 20;
    content::random_file(&lab.path("big"), 35, SIZE)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let out = lab.folder("out")?;
    let mut getter = lab.start_get("getter", &shared.address_with_hints, &out)?;
    getter.wait_fetching(SIZE / 10, TRANSFER)?;
    let mut file = OpenOptions::new().write(true).open(lab.path("big"))?;
    file.seek(SeekFrom::Start(SIZE - 4096))?;
    file.write_all(b"not what was shared")?;

    let outcome = getter.finish(TRANSFER)?;

    // It may have been read before the change; then it is right. Otherwise the fetch fails and leaves nothing.
    if let Ok(fetched) = outcome.fetched() {
        ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "wrong content was kept");
    } else {
        outcome.failure()?;
        ensure!(!out.join("big").exists(), "a file that is not complete bears the name of one that is");
    }
    Ok(())
}

#[test]
fn a_sharer_reports_what_is_not_there() -> Result<()> {
    let lab = Lab::new()?;
    let path = lab.path("no such file").into_os_string();
    let outcome = lab.run("sharer", ["share".into(), path])?;
    let failure = outcome.failure()?;
    ensure!(failure.message.contains("no such file"), "names not the path: {failure:?}");
    ensure!(!outcome.events.iter().any(|event| matches!(event, Event::Shared(_))), "{outcome:?}");
    Ok(())
}
