//! The examples do what they say: each runs as a process of its own, as a reader would run it.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The built example, beside which this test was built: `cargo test` and `cargo nextest` build the examples of a package too.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.parent().and_then(|deps| deps.parent()).expect("it is in target/…/deps").join("examples").join(name)
}

fn run(name: &str, args: &[&str]) -> String {
    let path = example(name);
    let ran = Command::new(&path).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}: {stdout}{stderr}", ran.status);
    stdout.into_owned()
}

fn assert_echoed(said: &str) {
    for line in ["allocated 127.0.0.1:", "let in 127.0.0.1", "the peer got its line back", "given back"] {
        assert!(said.contains(line), "{said}");
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_peer_reaches_a_client_through_the_relay_of_the_example() {
    assert_echoed(&run("allocate", &[]));
}

#[test]
fn a_client_reaches_a_relay_of_another_process_by_name() {
    let mut relay = Running(Command::new(example("relay")).stdout(Stdio::piped()).spawn().expect("a built example"));
    let mut said = String::new();
    BufReader::new(relay.0.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
    let said = said.replace("127.0.0.1", "localhost");
    let args: Vec<&str> = said.split_whitespace().collect();
    assert_echoed(&run("allocate", &args));
}
