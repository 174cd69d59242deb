//! `turns:`, with a certificate that no authority has signed.

use std::{fs, io::Write};

use super::{
    super::{AddressFamily, Allocation, Pin, Trust, TurnError},
    coturn::{Coturn, exchange_in_turn, is_missing},
    relaying::{accept, connect, listener},
};
use crate::net::path::PathStream;

/// A certificate for 127.0.0.1 and a server that has it.
struct Secure {
    coturn: Coturn,
    certificate: rcgen::CertifiedKey,
    file: tempfile::NamedTempFile,
}

fn secure(options: &[&str]) -> Secure {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(certificate.cert.pem().as_bytes()).unwrap();
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(key.path(), certificate.key_pair.serialize_pem()).unwrap();
    let (certificate_path, key_path) = (file.path().display().to_string(), key.path().display().to_string());
    let options = [&["--cert", &certificate_path, "--pkey", &key_path], options].concat();
    Secure { coturn: Coturn::start(&options), certificate, file }
}

#[tokio::test]
async fn a_pinned_server_relays_both_ways() {
    if is_missing() {
        return;
    }
    for options in [&[][..], &["--no-tlsv1", "--no-tlsv1_1"]] {
        let secure = secure(options);
        let pin = Pin::of_certificate(secure.certificate.cert.der()).unwrap();
        let server = secure.coturn.tls_server().with_trust(Trust::Pinned(pin));
        let mut allocation = Allocation::make(&server, AddressFamily::V4).await.unwrap();
        let (mut relayed, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
        assert!(matches!(relayed, PathStream::Tls(_)));
        exchange_in_turn(&mut relayed, &mut peer, 1 << 20).await;
        let (mut accepted, mut peer) = accept(&mut allocation).await;
        exchange_in_turn(&mut accepted, &mut peer, 1 << 20).await;
    }
}

#[tokio::test]
async fn a_file_of_certificates_is_as_good_as_the_systems() {
    if is_missing() {
        return;
    }
    let secure = secure(&[]);
    let trust = Trust::SystemAnd(secure.file.path().to_owned());
    Allocation::make(&secure.coturn.tls_server().with_trust(trust), AddressFamily::V4).await.unwrap();
}

#[tokio::test]
async fn another_key_and_an_unknown_authority_are_refused() {
    if is_missing() {
        return;
    }
    let secure = secure(&[]);
    let server = secure.coturn.tls_server();
    for trust in [Trust::Pinned(Pin::of_key(b"another")), Trust::System] {
        let made = Allocation::make(&server.clone().with_trust(trust), AddressFamily::V4).await;
        assert!(matches!(made.unwrap_err(), TurnError::Tls(_) | TurnError::Trust(_)));
    }
}
