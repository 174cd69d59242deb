//! Where a fetch puts things: what is there is never overwritten unasked, and what cannot be written is said.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use keyferry::node::api::FailureKind;
use keyferry_tests::{
    binary, content,
    lab::{Lab, SOON, TRANSFER},
    namespace,
    process::{Keyferry, Outcome},
};

#[test]
fn an_existing_file_is_replaced_only_with_overwrite() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 21, 100_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let out = lab.folder("out")?;
    fs::write(out.join("a"), b"mine")?;

    let refused = lab.get("getter", &shared.address_with_hints, &out)?;

    let failure = refused.failure()?;
    ensure!(format!("{failure:?}").contains("--overwrite"), "says not what to do: {failure:?}");
    ensure!(fs::read(out.join("a"))? == b"mine", "it was overwritten");
    only(&out, &["a"])?;

    let mut command = lab.command("getter", ["get", &shared.address_with_hints.to_string(), "--overwrite", "-o"])?;
    command.arg(&out);
    Keyferry::start(command)?.finish(TRANSFER)?.fetched()?;
    content::same(&lab.path("a"), &out.join("a"))
}

#[test]
fn an_existing_folder_is_not_mixed_with_what_is_fetched() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("tree")?, 22, 30)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let out = lab.folder("out")?;
    fs::create_dir(out.join("tree"))?;
    fs::write(out.join("tree/mine"), b"mine")?;

    let refused = lab.get("getter", &shared.address_with_hints, &out)?;

    refused.failure()?;
    ensure!(fs::read(out.join("tree/mine"))? == b"mine", "it was overwritten");
    only(&out.join("tree"), &["mine"])
}

#[test]
fn a_symlink_planted_in_the_target_is_not_followed() -> Result<()> {
    let lab = Lab::new()?;
    fs::create_dir_all(lab.path("tree/sub"))?;
    content::random_file(&lab.path("tree/sub/file"), 23, 100_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let elsewhere = lab.folder("elsewhere")?;
    for (round, planted) in ["tree", "tree/sub", "tree/sub/file"].into_iter().enumerate() {
        let out = lab.folder(format!("out{round}"))?;
        let link = out.join(planted);
        fs::create_dir_all(link.parent().unwrap_or(&out))?;
        symlink(&elsewhere, &link)?;
        for overwrite in [false, true] {
            let mut command = lab.command("getter", ["get", &shared.address_with_hints.to_string(), "-o"])?;
            command.arg(&out).args(overwrite.then_some("--overwrite"));
            // It may fail, or put a folder of its own where the symlink was: never through it.
            Keyferry::start(command)?.finish(TRANSFER)?;
            content::empty(&elsewhere)?;
        }
    }
    Ok(())
}

#[test]
fn a_dangling_symlink_as_the_target_file_is_not_followed() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 24, 100_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let out = lab.folder("out")?;
    symlink(lab.path("elsewhere"), out.join("a"))?;

    lab.get("getter", &shared.address_with_hints, &out)?.failure()?;

    ensure!(!lab.path("elsewhere").exists(), "the symlink was followed");
    Ok(())
}

#[test]
fn a_read_only_folder_is_said_in_one_line() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 25, 100_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let out = lab.folder("out")?;
    let script = "mount --bind \"$1\" \"$1\"; mount -o remount,ro,bind \"$1\"";
    let Some(outcome) = get_with_mounts(&lab, script, &out, &shared.address_with_hints.to_string())? else {
        return Ok(());
    };

    let failure = outcome.failure()?;
    ensure!(failure.kind == FailureKind::Local, "{failure:?}");
    ensure!(failure.message.contains("out"), "names not the folder: {failure:?}");
    content::empty(&out)
}

#[test]
fn a_disk_without_room_is_said_before_the_first_byte_and_the_fetch_goes_where_there_is_some() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 26, 24 << 20)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let out = lab.folder("out")?;
    let script = "mount -t tmpfs -o size=8m none \"$1\"";
    let Some(outcome) = get_with_mounts(&lab, script, &out, &shared.address_with_hints.to_string())? else {
        return Ok(());
    };

    let failure = outcome.failure()?;
    ensure!(failure.kind == FailureKind::Local, "{failure:?}");
    let text = format!("{failure:?}");
    ensure!(text.contains("25165824 are needed") && text.contains("8388608 bytes of free"), "names not both: {text}");
    content::empty(&out)?;

    lab.get("getter", &shared.address_with_hints, &out)?.fetched()?;
    content::same(&lab.path("a"), &out.join("a"))
}

#[test]
fn a_path_that_is_no_folder_names_what_is_fetched_itself() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 27, 100_000)?;
    content::random_tree(&lab.folder("tree")?, 28, 5)?;
    let (_sharer, file) = lab.share("sharer", &lab.path("a"))?;
    let (_other, tree) = lab.share("other", &lab.path("tree"))?;
    let by_hash =
        format!("keyferry:{}?{}", file.hash, file.address_with_hints.to_string().split_once('?').unwrap_or_default().1);
    let photo = lab.path("new/photo.jpg");
    for address in [file.address_with_hints.to_string(), by_hash] {
        ensure!(lab.get("getter", address, &photo)?.fetched()?.path == photo, "elsewhere");
        content::same(&lab.path("a"), &photo)?;
    }
    lab.get("getter", &tree.address_with_hints, &lab.path("holiday"))?.fetched()?;
    content::same(&lab.path("tree"), &lab.path("holiday"))?;
    // Now it is a folder that is there; and a slash says that one is meant.
    lab.get("getter", &file.address_with_hints, &lab.path("holiday"))?.fetched()?;
    content::same(&lab.path("a"), &lab.path("holiday/a"))?;
    lab.get("getter", &file.address_with_hints, &lab.path("folder/"))?.fetched()?;
    content::same(&lab.path("a"), &lab.path("folder/a"))
}

#[test]
fn the_same_get_twice_is_well_and_moves_nothing_the_second_time() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("tree")?, 29, 5)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let out = lab.folder("out")?;
    ensure!(!lab.get("getter", &shared.address_with_hints, &out)?.fetched()?.was_there, "it cannot be there");
    for node in ["getter", "another home"] {
        let again = lab.get(node, &shared.address_with_hints, &out)?;
        let again = again.fetched()?;
        ensure!(again.was_there && again.received_bytes < 10_000, "{node}: {again:?}");
    }
    only(&out, &["tree"])
}

#[test]
fn a_node_that_does_not_see_the_callers_folder_is_not_told_to_write_there() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 30, 100_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let out = lab.folder("out")?;
    let script = "mount -t tmpfs -o size=8m none \"$1\"";
    let Some(mut command) = namespace::with_mounts(script, &out, binary::keyferry()?.as_os_str()) else {
        return Ok(());
    };
    lab.arguments(&mut command, "getter", ["node"]);
    let mut node = Keyferry::start(command)?;
    node.wait_status(SOON)?;

    let refused = lab.get("getter", &shared.address_with_hints, &out)?;
    let failure = refused.failure()?;
    ensure!(failure.kind == FailureKind::Local && failure.message.contains("/out"), "{failure:?}");
    // A path that both see is none of its business.
    lab.get("getter", &shared.address_with_hints, &lab.folder("elsewhere")?)?.fetched()?;
    content::empty(&out)?;

    // The same of what is to be shared.
    fs::write(out.join("mine"), b"mine")?;
    let failure = lab.run("getter", ["share", "out/mine"])?;
    ensure!(failure.failure()?.message.contains("out/mine"), "{failure:?}");
    Ok(())
}

#[test]
fn files_that_a_running_node_fetches_have_the_rights_of_the_callers_own() -> Result<()> {
    let lab = Lab::new()?;
    fs::create_dir_all(lab.path("tree/sub"))?;
    for (path, mode) in [("tree/sub/plain", 0o644), ("tree/run", 0o755), ("tree/key", 0o600)] {
        fs::write(lab.path(path), path)?;
        fs::set_permissions(lab.path(path), fs::Permissions::from_mode(mode))?;
    }
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let address = shared.address_with_hints.to_string();
    let mut node = Keyferry::start(with_umask("077", lab.command("getter", ["node"])?))?;
    node.wait_status(SOON)?;

    for (umask, expected) in
        [("022", [0o755, 0o755, 0o644, 0o755, 0o600]), ("027", [0o750, 0o750, 0o640, 0o750, 0o600])]
    {
        let out = lab.path(umask);
        let get = lab.command("getter", ["get", &address, "-o"])?;
        let mut get = with_umask(umask, get);
        get.arg(&out);
        Keyferry::start(get)?.finish(TRANSFER)?.fetched()?;
        let mode = |path: &str| Ok(fs::metadata(out.join(path))?.permissions().mode() & 0o777);
        let modes = ["", "sub", "sub/plain", "run", "key"].into_iter().map(mode).collect::<Result<Vec<u32>>>()?;
        ensure!(modes == expected, "umask {umask}: {modes:?}, expected {expected:?}");
    }
    Ok(())
}

/// The same command under another umask.
fn with_umask(umask: &str, command: Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// Runs `keyferry get` with mounts of its own over the target folder; none where that is not allowed.
fn get_with_mounts(lab: &Lab, script: &str, out: &Path, address: &str) -> Result<Option<Outcome>> {
    let Some(mut command) = namespace::with_mounts(script, out, binary::keyferry()?.as_os_str()) else {
        return Ok(None);
    };
    lab.arguments(&mut command, "getter", ["get", address, "-o"]);
    command.arg(out);
    Ok(Some(Keyferry::start(command)?.finish(TRANSFER)?))
}

/// Requires that a folder has just these entries: nothing half-done lies beside them.
fn only(dir: &Path, expected: &[&str]) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    names.sort();
    ensure!(names == expected, "{} holds {names:?}", dir.display());
    Ok(())
}
