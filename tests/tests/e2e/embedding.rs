//! The library's examples as processes of their own, against the program: what embeds a node and what a person runs understand
//! each other.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
    process::wait_for_end,
};

/// An example that was built beside this test, on loopback alone.
fn example(name: &str) -> Result<Command> {
    let test = std::env::current_exe()?;
    let target: PathBuf = test.parent().and_then(|deps| deps.parent()).context("this test is in target/…/deps")?.into();
    let mut command = Command::new(target.join("examples").join(name));
    command.env("KEYFERRY_LISTEN", "127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// Kills a process that a failed test leaves.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_fetches_what_the_library_shares() -> Result<()> {
    let lab = Lab::new()?;
    content::random_tree(&lab.folder("holiday")?, 51, 20)?;
    let mut share = example("share")?;
    let mut sharer = Running(share.arg(lab.home("sharer")).arg(lab.path("holiday")).spawn()?);
    let mut address = String::new();
    BufReader::new(sharer.0.stdout.take().context("it is piped")?).read_line(&mut address)?;

    let outcome = lab.get("getter", address.trim(), &lab.folder("out")?)?;

    content::same(&lab.path("holiday"), &outcome.fetched()?.path)?;
    Command::new("kill").args(["-INT", &sharer.0.id().to_string()]).status()?;
    ensure!(wait_for_end(&mut sharer.0, SOON)?.success(), "Ctrl-C ends it in order");
    Ok(())
}

#[test]
fn the_library_fetches_what_the_program_shares() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("film"), 52, 3_000_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("film"))?;
    let mut get = example("get")?;
    get.arg(lab.home("getter")).arg(shared.address_with_hints.to_string()).arg(lab.path("out"));

    let mut getter = Running(get.spawn()?);

    ensure!(wait_for_end(&mut getter.0, TRANSFER)?.success(), "it fetches");
    content::same(&lab.path("film"), &lab.path("out/film"))
}

#[test]
fn two_programs_speak_a_protocol_of_their_own() -> Result<()> {
    let lab = Lab::new()?;
    let mut listen = example("own_protocol")?;
    let mut listener = Running(listen.arg("listen").arg(lab.home("listener")).spawn()?);
    let mut address = String::new();
    BufReader::new(listener.0.stdout.take().context("it is piped")?).read_line(&mut address)?;
    let mut connect = example("own_protocol")?;
    connect.arg("connect").arg(lab.home("caller")).arg(address.trim()).arg("over any path");

    let mut caller = Running(connect.spawn()?);

    ensure!(wait_for_end(&mut caller.0, SOON)?.success(), "it is answered");
    let mut answer = String::new();
    BufReader::new(caller.0.stdout.take().context("it is piped")?).read_line(&mut answer)?;
    ensure!(answer == "OVER ANY PATH\n", "{answer:?}");
    Ok(())
}
