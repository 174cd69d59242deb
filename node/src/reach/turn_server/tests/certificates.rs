//! `turns:` with a certificate of the operator's.

use std::{fs, path::PathBuf};

use super::bench::{Bench, config, exchange, in_time, relayed};
use crate::{
    net::path::PathStream,
    reach::{
        turn_client::{AddressFamily, Allocation, Pin, Trust, TurnError},
        turn_server::{Relay, RelayConfig},
    },
};

/// A certificate that no authority has signed, with its key, in files.
struct Files {
    dir: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
    pin: Pin,
}

fn files(names: &[&str]) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let made = made.unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    Files { dir, certificate, key, pin: Pin::of_certificate(made.cert.der()).unwrap() }
}

async fn bench(files: &Files) -> Bench {
    let certificate = Some((files.certificate.clone(), files.key.clone()));
    Bench::new(RelayConfig { certificate, ..config() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_certificate_is_shown_and_verified() {
    let files = files(&["127.0.0.1", "::1"]);
    let bench = bench(&files).await;
    assert_eq!(bench.relay.pin(), Some(files.pin));
    assert!(!bench.home.path().join("relay.crt").exists(), "none is made");
    for trust in [Trust::SystemAnd(files.certificate.clone()), Trust::Pinned(files.pin)] {
        let server = bench.server(true, "ada", "lovelace").with_trust(trust);
        let allocation = in_time(Allocation::make(&server, AddressFamily::V4)).await.unwrap();
        let (mut client, mut peer) = relayed(&allocation).await;
        assert!(matches!(client, PathStream::Tls(_)));
        exchange(&mut client, &mut peer, 100_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_to_believe_it_does_not() {
    let (files, others, elsewhere) = (files(&["127.0.0.1"]), files(&["127.0.0.1"]), files(&["relay.example.org"]));
    let cases = [
        (&files, Trust::System),
        (&files, Trust::SystemAnd(others.certificate.clone())),
        (&files, Trust::Pinned(others.pin)),
        // It is believed, but not for this host.
        (&elsewhere, Trust::SystemAnd(elsewhere.certificate.clone())),
    ];
    for (shown, trust) in cases {
        let bench = bench(shown).await;
        let server = bench.server(true, "ada", "lovelace").with_trust(trust.clone());

        let error = in_time(Allocation::make(&server, AddressFamily::V4)).await.unwrap_err();

        assert!(matches!(error, TurnError::Tls(_) | TurnError::Trust(_)), "{trust:?}: {error}");
        assert_eq!(bench.count(|counters| counters.unauthenticated), 0, "it has sent nothing");
    }
}

#[tokio::test]
async fn files_that_are_wrong_or_missing_are_named_in_one_line() {
    let (files, others) = (files(&["127.0.0.1"]), files(&["127.0.0.1"]));
    let file = |name: &str, text: &str| {
        let path = files.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let missing = files.dir.path().join("missing.pem");
    let (empty, prose) = (file("empty.pem", ""), file("prose.pem", "Lorem ipsum"));
    let garbled = file("garbled.pem", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n");
    let cases = [
        (&missing, &files.key, "missing.pem"),
        (&files.certificate, &missing, "missing.pem"),
        (&empty, &files.key, "empty.pem holds no usable certificate"),
        (&prose, &files.key, "prose.pem holds no usable certificate"),
        (&garbled, &files.key, "garbled.pem holds no usable certificate"),
        (&files.certificate, &empty, "empty.pem holds no usable private key"),
        (&files.certificate, &files.certificate, "chain.pem holds no usable private key"),
        (&files.key, &files.key, "key.pem holds no usable certificate"),
        (&files.certificate, &others.key, "is not that of"),
    ];
    for (certificate, key, expected) in cases {
        let home = tempfile::tempdir().unwrap();
        let certificate = Some((certificate.clone(), key.clone()));
        let error = Relay::start(RelayConfig { certificate, ..config() }, &[], home.path().to_owned()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected) && error.lines().count() == 1, "{expected}: {error}");
        assert!(error.starts_with("the relay's certificate"), "{error}");
    }
}
