//! Files that change while they are shared: what each side's terminal says, and shares that follow their folders.

use std::{ffi::OsStr, fs};

use anyhow::{Context, Result, ensure};
use keyferry::node::api::{Event, FailureKind, MissingInfo, UnservedFault, UnservedInfo};
use keyferry_tests::lab::{Lab, SOON, TRANSFER};

#[test]
fn a_file_that_has_changed_is_named_on_both_sides_and_the_rest_of_the_folder_arrives() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree/sub")?;
    for (name, content) in [("a", "as it was"), ("b", "stays"), ("c", "will go")] {
        fs::write(tree.join(name), content)?;
    }
    let (mut sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    fs::write(tree.join("a"), "as it became")?;
    fs::remove_file(tree.join("c"))?;

    let outcome = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?;

    let failure = outcome.failure()?;
    ensure!(
        failure.kind == FailureKind::Network && failure.message.contains("2 of 3 files are missing"),
        "{failure:?}"
    );
    let missing: Vec<&MissingInfo> = outcome
        .events
        .iter()
        .filter_map(|event| if let Event::Missing(missing) = event { Some(missing) } else { None })
        .collect();
    ensure!(missing.iter().map(|missing| missing.path.as_str()).eq(["sub/a", "sub/c"]), "{missing:?}");
    ensure!(missing[0].why.contains("changed") && missing[1].why.contains("gone"), "{missing:?}");
    ensure!(fs::read_to_string(lab.path("out/tree/sub/b"))? == "stays");
    ensure!(!lab.path("out/tree/sub/a").exists());
    for (name, expected) in [("a", UnservedFault::Changed), ("c", UnservedFault::Gone)] {
        let UnservedInfo { path, name: share, fault, .. } =
            sharer.wait_for(
                SOON,
                |event| if let Event::Unserved(unserved) = event { Some(unserved.clone()) } else { None },
            )?;
        ensure!((path.file_name(), fault) == (Some(OsStr::new(name)), expected), "{path:?} {fault:?}");
        ensure!(share.is_some_and(|share| share.as_str() == "tree"));
    }
    Ok(())
}

#[test]
fn a_share_follows_its_folder() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree")?;
    fs::write(tree.join("a"), "first")?;
    let mut sharer = lab.start("sharer", [OsStr::new("share"), OsStr::new("--watch"), tree.as_os_str()])?;
    let shared = sharer.wait_shared(TRANSFER)?;
    fs::write(tree.join("a"), "second")?;

    let renewed = sharer
        .wait_for(SOON, |event| if let Event::Renewed(renewed) = event { Some(renewed.clone()) } else { None })
        .context("a new version")?;

    ensure!(renewed.hash != shared.hash && renewed.name == shared.name, "{renewed:?}");
    let fetched = lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.fetched()?.clone();
    ensure!(fetched.hash == renewed.hash);
    ensure!(fs::read_to_string(lab.path("out/tree/a"))? == "second");
    Ok(())
}
