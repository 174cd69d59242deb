//! coturn's own client against this relay. Needs Debian's package coturn.

use std::process::{Command, Stdio};

use super::bench::{Bench, config};
use crate::reach::turn_server::RelayConfig;

const PROGRAM: &str = "turnutils_uclient";
/// Messages that each of two clients sends to the other.
const MESSAGES: &str = "20";

/// Runs coturn's client in TCP-relay mode with pairs of clients that talk to each other by way of their relayed addresses; returns
/// what it prints, or `None` if it is not installed.
async fn uclient(bench: &Bench, arguments: &[&str]) -> Option<String> {
    let port = bench.addr.port().to_string();
    if keyferry_needs::lacks(&[PROGRAM]) {
        return None;
    }
    let mut command = Command::new("timeout");
    command
        .args(["20", PROGRAM, "-T", "-v", "-n", MESSAGES, "-z", "5", "-l", "400", "-p", &port])
        .args(arguments)
        .arg("127.0.0.1")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn assert_all_arrived(said: &str) {
    let last = said.lines().rev().find(|line| line.contains("Total lost packets")).unwrap_or(said);
    assert!(last.contains("Total lost packets 0"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_clients_talk_through_this_relay_plain_and_by_tls() {
    for tls in [&[][..], &["-S"]] {
        let bench = Bench::new(RelayConfig { allow_peers: Vec::new(), ..config() }).await;
        let arguments = [&["-u", "ada", "-w", "lovelace", "-m", "2"], tls].concat();
        let Some(said) = uclient(&bench, &arguments).await else { return };
        assert_all_arrived(&said);
        assert!(bench.count(|counters| counters.joined) >= 2, "{said}");
        // The last of them are counted when the connections end, which is no earlier than this.
        bench.until(|counters| counters.bytes, |bytes| bytes >= 20 * 400).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_clients_that_let_peers_connect_are_told_of_them() {
    let bench = Bench::new(config()).await;
    let Some(said) = uclient(&bench, &["-P", "-u", "ada", "-w", "lovelace", "-m", "2"]).await else { return };
    assert!(bench.count(|counters| counters.joined) >= 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_form_of_credentials_that_run_out_is_understood() {
    let bench = Bench::new(RelayConfig { allow_peers: Vec::new(), ..config() }).await;
    let Some(said) = uclient(&bench, &["-u", "carol", "-W", "north", "-m", "2"]).await else { return };
    assert_all_arrived(&said);
    assert!(bench.count(|counters| counters.joined) >= 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_gets_it_nowhere() {
    let bench = Bench::new(config()).await;
    let Some(said) = uclient(&bench, &["-u", "ada", "-w", "wrong", "-m", "2"]).await else { return };
    assert_eq!(bench.count(|counters| counters.allocated), 0, "{said}");
    bench.until(|counters| counters.forged, |refused| refused > 0).await;
}
