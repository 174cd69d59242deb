//! `get -o -`: verified bytes on standard output, and nothing else there.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use keyferry::node::api::Event;
use keyferry_tests::{
    content,
    lab::{Lab, SOON, eventually},
    process::Keyferry,
};

/// More than any pipe or socket takes in by itself.
const LEN: u64 = 4 << 20;

/// `keyferry get ADDRESS -o -` for people, without `--json`.
fn get_to_stdout(lab: &Lab, node: &str, address: impl std::fmt::Display) -> Result<Command> {
    let json = lab.command(node, ["get", &address.to_string(), "-o", "-"])?;
    let mut command = Command::new(json.get_program());
    command.args(json.get_args().filter(|argument| *argument != "--json"));
    for (name, value) in json.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(lab.path("")).stdin(Stdio::null());
    Ok(command)
}

fn ensure_streamed(output: &Output, expected: &Path) -> Result<()> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    ensure!(output.stdout == fs::read(expected)?, "other bytes came: {} of them; {told}", output.stdout.len());
    ensure!(told.contains("Read 4.00 MiB"), "standard error tells nothing: {told}");
    Ok(())
}

#[test]
fn a_file_streams_to_standard_output_with_and_without_a_running_node() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 51, LEN)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = &shared.address_with_hints;

    ensure_streamed(&get_to_stdout(&lab, "alone", address)?.output()?, &lab.path("a"))?;

    let (_node, _) = lab.node("beside")?;
    ensure_streamed(&get_to_stdout(&lab, "beside", address)?.output()?, &lab.path("a"))?;
    ensure!(!lab.path("-").exists(), "a file called - was made");
    for home in ["alone", "beside"] {
        let is_temporary = |name: &str| name.starts_with(".keyferry-tmp-");
        let names = fs::read_dir(lab.home(home))?.flatten().map(|entry| entry.file_name());
        ensure!(!names.filter_map(|name| name.into_string().ok()).any(|name| is_temporary(&name)), "left in {home}");
    }
    Ok(())
}

#[test]
fn a_reader_that_has_had_enough_ends_the_fetch_without_a_word() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 52, LEN)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let mut command = get_to_stdout(&lab, "getter", &shared.address_with_hints)?;
    let mut get = command.arg("--quiet").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut first = [0; 1000];
    let mut stdout = get.stdout.take().context("standard output was piped")?;
    stdout.read_exact(&mut first)?;
    drop(stdout);

    let ended = get.wait_with_output()?;

    ensure!(first[..] == fs::read(lab.path("a"))?[..1000], "other bytes came");
    ensure!(ended.status.code() == Some(141), "{:?}", ended.status);
    ensure!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

#[test]
fn a_file_in_a_folder_streams_by_its_path() -> Result<()> {
    let lab = Lab::new()?;
    let tree = lab.folder("tree/in")?;
    content::random_file(&tree.join("a"), 54, LEN)?;
    content::random_file(&tree.join("before"), 55, 300_000)?;
    fs::write(tree.join("empty"), "")?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    let whole = shared.address_with_hints.to_string();
    let (named, hints) = whole.split_once('?').context("hints")?;
    let at = |path: &str| format!("{named}/{path}?{hints}");

    ensure_streamed(&get_to_stdout(&lab, "getter", at("in/a"))?.output()?, &tree.join("a"))?;
    for (path, expected) in [("in/empty", 0), ("in/before", 300_000)] {
        let output = get_to_stdout(&lab, "getter", at(path))?.output()?;
        ensure!(output.status.success() && output.stdout.len() == expected, "{path}: {output:?}");
    }
    for (path, told) in [("in", "is a folder"), ("in/nothing", "in/nothing")] {
        let refused = get_to_stdout(&lab, "getter", at(path))?.output()?;
        let words = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(2) && words.contains(told), "{path}: {words}");
        ensure!(refused.stdout.is_empty(), "{path}: something was written");
    }
    Ok(())
}

#[test]
fn a_folder_and_what_is_to_be_kept_are_refused_with_advice() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("tree")?, 53, 5)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("tree"))?;
    for (option, advice) in [("--wait=none", "-o FOLDER"), ("--seed", "./-")] {
        let mut command = get_to_stdout(&lab, "getter", &shared.address_with_hints)?;
        let refused = command.arg(option).output()?;
        let told = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(2) && told.contains(advice), "{option}: {told}");
        ensure!(refused.stdout.is_empty(), "{option}: something was written");
    }
    Ok(())
}

/// `keyferry share - --name NAME` with these bytes on its standard input.
fn share_input(lab: &Lab, node: &str, name: &str, bytes: Vec<u8>) -> Result<Keyferry> {
    let command = lab.command(node, ["share", "-", "--name", name])?;
    let (sharer, mut input) = Keyferry::start_with_input(command)?;
    std::thread::spawn(move || input.write_all(&bytes));
    Ok(sharer)
}

#[test]
fn standard_input_is_shared_and_kept_with_and_without_a_running_node() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 56, LEN)?;
    let bytes = fs::read(lab.path("a"))?;
    let out = lab.folder("out")?;
    let mut sharer = share_input(&lab, "sharer", "alone", bytes.clone())?;
    let shared = sharer.wait_shared(SOON)?;
    ensure!((shared.size, shared.name.as_str()) == (LEN, "alone"), "{shared:?}");
    lab.get("getter", &shared.address_with_hints, &out)?.fetched()?;
    content::same(&lab.path("a"), &out.join("alone"))?;
    // It is no secret: it is as open as any new file.
    ensure!(fs::metadata(out.join("alone"))?.permissions().mode() & 0o044 != 0, "it is private");
    drop(sharer);

    let (_node, _) = lab.node("beside")?;
    let ended = share_input(&lab, "beside", "empty", Vec::new())?.finish(SOON)?;
    ensure!(ended.status.success(), "{ended:?}");
    let listed = lab.run("beside", ["shares"])?;
    let is_it =
        |event: &Event| matches!(event, Event::Share(share) if share.root.size == 0 && share.root.path.is_none());
    ensure!(listed.events.iter().any(is_it), "{listed:?}");
    for home in ["sharer", "beside"] {
        ensure!(temporary_files(&lab, home)?.is_empty(), "{:?}", temporary_files(&lab, home)?);
    }
    Ok(())
}

#[test]
fn standard_input_that_does_not_end_is_not_shared() -> Result<()> {
    let lab = Lab::new()?;
    let command = lab.command("sharer", ["share", "-", "--name", "half"])?;
    let (sharer, mut input) = Keyferry::start_with_input(command)?;
    input.write_all(b"the first half")?;
    eventually(SOON, || {
        let sizes = temporary_files(&lab, "sharer")?;
        ensure!(sizes.contains(&14), "nothing has come: {sizes:?}");
        Ok(())
    })?;
    let ended = sharer.stop(SOON)?;
    ensure!(ended.status.code() == Some(130), "{ended:?}");
    drop(input);
    ensure!(temporary_files(&lab, "sharer")?.is_empty(), "it was left");
    let listed = lab.run("sharer", ["shares"])?;
    ensure!(matches!(listed.events.last(), Some(Event::Shares { count: 0 })), "{listed:?}");
    Ok(())
}

#[test]
fn what_does_not_go_with_standard_input_is_refused_with_advice() -> Result<()> {
    let lab = Lab::new()?;
    fs::write(lab.path("-"), "a file")?;
    for (arguments, advice) in [
        (&["share", "-"][..], "--name"),
        (&["share", "-", "other", "--name", "x"], "one"),
        (&["share", "-", "--name", "x", "--watch"], "./-"),
    ] {
        let refused = lab.run("sharer", arguments)?;
        let told = format!("{:?}", refused.failure()?);
        ensure!(refused.status.code() == Some(2) && told.contains(advice), "{arguments:?}: {told}");
    }
    Ok(())
}

/// The sizes of the temporary files in a data folder.
fn temporary_files(lab: &Lab, home: &str) -> Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(lab.home(home))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".keyferry-tmp-") {
            sizes.push(entry.metadata()?.len());
        }
    }
    Ok(sizes)
}
