//! `get -o -`: verified bytes on standard output, and nothing else there.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use keyferry_tests::{content, lab::Lab};

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
