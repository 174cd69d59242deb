//! The command line as a whole: clean ends, two commands on one data folder, status, completions, man pages.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use keyferry::node::api::{Event, FailureKind};
use keyferry_tests::{
    binary, content,
    lab::{Lab, SOON, TRANSFER},
    namespace,
    process::Keyferry,
};

#[test]
fn an_interrupted_fetch_ends_cleanly_and_goes_on_later() -> Result<()> {
    let lab = Lab::new()?;
    const SIZE: u64 = 160 << 20;
    content::random_file(&lab.path("big"), 61, SIZE)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let out = lab.folder("out")?;
    let mut getter = lab.start_get("getter", &shared.address_with_hints, &out)?;
    getter.wait_fetching(SIZE / 20, TRANSFER)?;
    getter.signal("INT")?;

    let outcome = getter.finish(SOON)?;

    if outcome.fetched().is_err() {
        let failure = outcome.failure()?;
        ensure!(failure.kind == FailureKind::Interrupted, "{failure:?}");
        ensure!(!out.join("big").exists(), "a file that is not complete bears the name of one that is");
        let again = lab.get("getter", &shared.address_with_hints, &out)?;
        ensure!(again.fetched()?.resumed_bytes >= outcome.last_progress() / 20 * 19, "{:?}", again.fetched()?);
    }
    content::same(&lab.path("big"), &out.join("big"))
}

#[test]
fn sharers_and_nodes_end_cleanly_on_both_signals() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 62, 10_000)?;
    for signal in ["INT", "TERM"] {
        let (sharer, _) = lab.share("sharer", &lab.path("a"))?;
        sharer.signal(signal)?;
        let shared = sharer.finish(SOON)?;
        ensure!(matches!(shared.status.code(), Some(0 | 130)), "{signal}: {shared:?}");
        let (node, _) = lab.node("node")?;
        node.signal(signal)?;
        let stopped = node.finish(SOON)?;
        ensure!(matches!(stopped.status.code(), Some(0 | 130)), "{signal}: {stopped:?}");
    }
    Ok(())
}

#[test]
fn a_second_command_uses_the_running_node() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 63, 200_000)?;
    let (_node, status) = lab.node("sharer")?;

    let shared = {
        let mut share = lab.start("sharer", ["share".into(), lab.path("a").into_os_string()])?;
        share.wait_shared(TRANSFER)?
    };
    ensure!(shared.address.to_string().contains(&status.node), "{shared:?}, {status:?}");

    // The command that shared has gone; the node that runs serves it.
    lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.fetched()?;
    content::same(&lab.path("a"), &lab.path("out/a"))?;
    let outcome = lab.run("sharer", ["status"])?;
    let Some(Event::Status(now)) = outcome.events.last() else { anyhow::bail!("{outcome:?}") };
    ensure!(now.running && now.shared == 1 && now.node == status.node, "{now:?}");
    ensure!(now.sent_bytes >= 200_000, "{now:?}");
    Ok(())
}

#[test]
fn a_command_that_is_to_hide_is_refused_where_the_running_node_does_not() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 64, 1000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address_with_hints.to_string();
    let (_node, _) = lab.node("getter")?;

    for quiet in [None, Some("-q")] {
        let get = ["get", &address, "-o", "out", "--relay-only"].into_iter().chain(quiet);
        let refused = lab.run("getter", get)?;
        let failure = refused.failure()?;
        ensure!(failure.kind == FailureKind::Usage && failure.message.contains("--relay-only"), "{failure:?}");
        ensure!(failure.advice.as_ref().is_some_and(|advice| advice.contains("KEYFERRY_RELAY_ONLY")), "{failure:?}");
        ensure!(!lab.path("out").exists(), "{refused:?}");
    }
    // What the node was started with may be said again; the lab's own variables do.
    lab.get("getter", &address, &lab.folder("out")?)?.fetched()?;
    Ok(())
}

#[test]
fn status_without_a_node_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let outcome = lab.run("node", ["status"])?;
    let Some(Event::Status(status)) = outcome.events.last() else { anyhow::bail!("{outcome:?}") };
    ensure!(!status.running && status.shared == 0, "{status:?}");
    Ok(())
}

#[test]
fn the_identity_stays_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let id = || -> Result<String> {
        let output = Command::new(binary::keyferry()?).arg("--home").arg(lab.home("node")).arg("id").output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let first = id()?;
    ensure!(first.contains("12D3KooW"), "{first}");
    ensure!(id()? == first, "another identity");
    let (_node, status) = lab.node("node")?;
    ensure!(first.contains(&status.node), "{first}, {}", status.node);
    Ok(())
}

#[test]
fn completions_and_man_pages_are_generated() -> Result<()> {
    let lab = Lab::new()?;
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(binary::keyferry()?).args(["completions", shell]).output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(String::from_utf8_lossy(&output.stdout).contains("keyferry"), "{shell}: no completions");
    }
    let pages = lab.folder("man")?;
    let output = Command::new(binary::keyferry()?).arg("man").arg(&pages).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn an_address_is_understood_as_it_was_pasted_and_an_empty_variable_as_unset() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 66, 10_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address_with_hints.to_string();
    let pasted =
        [format!(" <{address}>\n"), format!("keyferry get '{address}'"), address.replace("keyferry:", "KEYFERRY://")];
    for (round, pasted) in pasted.into_iter().enumerate() {
        lab.get("getter", pasted, &lab.path(format!("out{round}")))?.fetched()?;
        content::same(&lab.path("a"), &lab.path(format!("out{round}")))?;
    }
    let mut command = lab.command("other", ["get", &address, "-o", "out"])?;
    for variable in
        ["BOOTSTRAP", "STUN", "CALLS", "TURN", "TURN_PROXY", "SEED", "PUBLIC", "RELAY_ONLY", "NO_RELAY", "PASSPHRASE"]
    {
        command.env(format!("KEYFERRY_{variable}"), "");
    }
    Keyferry::start(command)?.finish(SOON)?.fetched()?;
    Ok(())
}

#[test]
fn a_node_whose_usual_port_is_taken_says_at_which_it_is() -> Result<()> {
    const TEST: &str = "command_line::a_node_whose_usual_port_is_taken_says_at_which_it_is";
    namespace::with_network(TEST, "true", || {
        let lab = Lab::new()?;
        let _taken = std::net::TcpListener::bind(("0.0.0.0", 41414))?;
        let mut command = lab.command("node", ["node"])?;
        command.env("KEYFERRY_LISTEN", "");
        let mut node = Keyferry::start(command)?;
        let status = node.wait_status(SOON)?;
        let port = status.listen.first().context("it listens nowhere")?.port();
        let notice = node.wait_for(SOON, |event| match event {
            Event::Notice { message } if message.contains("41414") => Some(message.clone()),
            _ => None,
        })?;
        ensure!(port != 41414 && notice.contains(&format!("listens at {port}")), "{notice}");
        Ok(())
    })
}

#[test]
fn an_unknown_command_is_a_usage_error() -> Result<()> {
    let output = Command::new(binary::keyferry()?).arg("no-such-command").output()?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}

#[test]
fn what_people_read_has_no_json_and_no_control_characters_when_it_is_no_terminal() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 64, 200_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let output = Command::new(binary::keyferry()?)
        .arg("--home")
        .arg(lab.home("getter"))
        .args(["get", &shared.address_with_hints.to_string(), "--no-mdns", "--listen", "127.0.0.1:0", "-o"])
        .arg(lab.folder("out")?)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    for bytes in [output.stdout, output.stderr] {
        let text = String::from_utf8(bytes)?;
        ensure!(!text.contains("{\"event\""), "{text}");
        ensure!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    Ok(())
}
