//! Tests that need a network of their own: each runs itself again in a new network namespace. Without the right to make one, it is
//! skipped.
//!
//! What it is not: what is in that network, which each test sets up.

use std::process::Command;

const INSIDE: &str = "KEYFERRY_TEST_NAMESPACE";

/// Runs the test `name` (with its modules) again in a namespace of its own, and returns whether this is that second run. The test
/// needs `programs`; the script `set_up` prepares the namespace, and ends by executing its arguments.
pub(crate) fn in_namespace(name: &str, programs: &[&str], set_up: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if keyferry_needs::lacks(&[&["unshare", "ip"], programs].concat()) {
        return false;
    }
    if !succeeds("unshare", &["-n", "sh", "-c", "ip link add v0 type veth peer name v1"]) {
        keyferry_needs::skip("namespaces", "root alone may make network namespaces, where the machine allows it");
        return false;
    }
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", set_up])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    false
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
