//! The examples do what they say: each runs as a process of its own, as a reader would run it.

use std::{path::PathBuf, process::Command};

/// The built example, beside which this test was built: `cargo test` and `cargo nextest` build the examples of a package too.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.parent().and_then(|deps| deps.parent()).expect("it is in target/…/deps").join("examples").join(name)
}

fn run(name: &str) -> String {
    let path = example(name);
    let ran = Command::new(&path).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}: {stdout}{stderr}", ran.status);
    stdout.into_owned()
}

#[test]
fn two_agents_choose_one_connection_and_talk_on_it() {
    let said = run("two_agents");
    for line in ["alice chose Host", "bob chose Host", "both lines have arrived"] {
        assert!(said.contains(line), "{said}");
    }
}
