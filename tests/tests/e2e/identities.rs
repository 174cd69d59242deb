//! Keys and addresses that are wrong, and key files that others can read.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Result, ensure};
use keyferry::node::api::FailureKind;
use keyferry_tests::{
    content,
    lab::{Lab, SOON},
};

#[test]
fn wrong_addresses_are_refused_at_once_with_one_line() -> Result<()> {
    let lab = Lab::new()?;
    let key = "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2";
    let hash = "a".repeat(64);
    let wrong = [
        String::new(),
        "keyferry:".into(),
        "not an address".into(),
        format!("http://{key}/a"),
        "keyferry:12D3KooW/a".into(),
        format!("keyferry:{}/a", &key[..51]),
        format!("keyferry:{key}x/a"),
        format!("keyferry:{key}/../a"),
        format!("keyferry:{key}/a//b"),
        format!("keyferry:{key}/%2e%2e"),
        format!("keyferry:{}", &hash[1..]),
        format!("keyferry:{hash}?via="),
        format!("keyferry:{hash}?via=127.0.0.1:1"),
        format!("keyferry:{hash}?other=1"),
        format!("keyferry:{key}/{}", "n".repeat(256)),
        format!("keyferry:{hash}?via=/ip4/127.0.0.1/tcp/1{}", "&via=/ip4/127.0.0.1/tcp/1".repeat(8)),
    ];
    for address in wrong {
        let outcome = lab.start_get("getter", &address, &lab.folder("out")?)?.finish(SOON)?;
        let failure = outcome.failure()?;
        ensure!(failure.kind == FailureKind::Usage, "{address:?}: {failure:?}");
    }
    content::empty(&lab.path("out"))
}

#[test]
fn a_node_that_is_not_there_is_a_failure_of_the_network() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    let nobody = keyferry_proto::identity::NodeSecret::from_bytes(&[9; 32]).public();

    let outcome = lab.get("getter", format!("keyferry:{nobody}/a"), &lab.folder("out")?)?;

    ensure!(outcome.failure()?.kind == FailureKind::Network, "{:?}", outcome.failure()?);
    Ok(())
}

#[test]
fn content_that_nobody_has_is_given_up() -> Result<()> {
    let lab = Lab::new()?;
    let address = format!("keyferry:{}", keyferry_proto::hash::ContentHash::of(b"nobody has this"));

    let outcome = lab.get("getter", &address, &lab.folder("out")?)?;

    ensure!(outcome.failure()?.kind == FailureKind::Network, "{:?}", outcome.failure()?);
    content::unfinished(&lab.path("out"))
}

#[test]
fn a_peer_with_another_key_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 41, 10_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let wrong = keyferry_proto::identity::NodeSecret::from_bytes(&[8; 32]).public();
    let address = shared.address_with_hints.to_string();
    let (_, hints) = address.split_once('?').unwrap_or_default();

    // The hint leads to a real node: only its key is not the one that was asked for.
    let outcome = lab.get("getter", format!("keyferry:{wrong}/a?{hints}"), &lab.folder("out")?)?;

    ensure!(outcome.failure()?.kind == FailureKind::Network, "{:?}", outcome.failure()?);
    content::empty(&lab.path("out"))
}

#[test]
fn a_name_that_a_node_does_not_share_is_said() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 42, 10_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address_with_hints.to_string().replacen("/a", "/nothing-of-that-name", 1);

    let outcome = lab.get("getter", &address, &lab.folder("out")?)?;

    ensure!(outcome.failure()?.message.contains("nothing-of-that-name"), "{:?}", outcome.failure()?);
    Ok(())
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_advice() -> Result<()> {
    let lab = Lab::new()?;
    let (node, status) = lab.node("node")?;
    node.stop(SOON)?;
    let key_file = lab.home("node").join("identity.key");
    let mode = fs::metadata(&key_file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "a new key file has mode {mode:o}");
    for mode in [0o640, 0o604, 0o644, 0o660] {
        fs::set_permissions(&key_file, fs::Permissions::from_mode(mode))?;
        let outcome = lab.run("node", ["node"])?;
        let failure = outcome.failure()?;
        ensure!(format!("{failure:?}").contains("chmod"), "{mode:o}: says not what to do: {failure:?}");
    }

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
    let (_node, again) = lab.node("node")?;
    ensure!(again.node == status.node, "another key: {} was {}", again.node, status.node);
    Ok(())
}

#[test]
fn a_damaged_key_file_is_never_replaced() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _) = lab.node("node")?;
    node.stop(SOON)?;
    let key_file = lab.home("node").join("identity.key");
    for damage in [&b""[..], b"short", &[0xff; 68]] {
        fs::write(&key_file, damage)?;
        lab.run("node", ["node"])?.failure()?;
        ensure!(fs::read(&key_file)? == damage, "the key file was replaced");
    }
    Ok(())
}
