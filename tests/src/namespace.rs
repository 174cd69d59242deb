//! Commands in a mount namespace of their own, for disks that are full or read-only; tests in a network namespace of their
//! own, for addresses that this machine does not have.
//!
//! What it is not: a sandbox; only mounts, or only the network, are private.

use std::{env, ffi::OsStr, path::Path, process::Command};

use anyhow::{Result, ensure};

/// Names the test that runs inside its namespace.
const INSIDE: &str = "KEYFERRY_TEST_IN_NAMESPACE";

/// Whether this machine lets us make a namespace of a kind in which a script works, and with which arguments of `unshare`.
fn arguments(kind: &'static str, script: &str) -> Option<Vec<&'static str>> {
    [vec![kind], vec![kind, "--user", "--map-root-user"]].into_iter().find(|arguments| {
        let output = Command::new("unshare").args(arguments).args(["sh", "-c", script]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// Runs `body`, the rest of the test with this full name, in a network namespace that has nothing but loopback, after a
/// shell script has put up what else it needs. Where that is not allowed, the test is skipped.
pub fn with_network(test: &str, script: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return body();
    }
    if keyferry_needs::lacks(&["unshare", "ip"]) {
        return Ok(());
    }
    let script = format!("set -e; ip link set lo up; {script}");
    let Some(arguments) = arguments("--net", &script) else {
        keyferry_needs::skip(
            "namespaces",
            "this machine lets neither root nor a user namespace make a network namespace",
        );
        return Ok(());
    };
    let output = Command::new("unshare")
        .args(arguments)
        .args(["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])
        .arg(env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, test)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("1 passed"), "there is no test {test}");
    Ok(())
}

/// A command that first runs a shell script, in which `$1` is `dir`, in a mount namespace of its own, and then becomes
/// `program` with the arguments that are added to it. None, with the test skipped, where that is not allowed.
pub fn with_mounts(script: &str, dir: &Path, program: &OsStr) -> Option<Command> {
    if keyferry_needs::lacks(&["unshare"]) {
        return None;
    }
    let Some(arguments) = arguments("--mount", "mount -t tmpfs -o size=64k none /mnt") else {
        keyferry_needs::skip("namespaces", "this machine lets neither root nor a user namespace mount a folder");
        return None;
    };
    let mut command = Command::new("unshare");
    command.args(arguments).args(["sh", "-c", &format!("set -e; {script}; shift; exec \"$@\""), "sh"]);
    command.arg(dir).arg(program);
    Some(command)
}
