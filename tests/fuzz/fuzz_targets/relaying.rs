//! Requests to relays and their replies: no bytes make a reader panic, nobody but the node that has signed is taken for it,
//! and what was taken is within the limits.

#![no_main]

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    identity::NodeSecret,
    relaying::{
        MAX_ADDRS, MAX_CLOCK_SKEW, MAX_LIFETIME, MAX_PASSWORD_LEN, MAX_REALM_LEN, MAX_REPLY_LEN, MAX_USERNAME_LEN,
        RelayChannel, RelayCredentials, Reply, node_request, verify_request,
    },
};
use libfuzzer_sys::fuzz_target;

const CHANNEL: RelayChannel = RelayChannel { relay: [1; 32], requester: [2; 32] };
const NOW: UnixTime = UnixTime(1_800_000_000);

/// Bytes of an honest message that become others.
type Edits = Vec<(u16, u8)>;

fuzz_target!(|input: (Vec<u8>, Edits, Edits, u64)| {
    let (raw, edits_of_request, edits_of_reply, time) = input;
    let (relay, requester) = (NodeSecret::from_bytes(&[5; 32]), NodeSecret::from_bytes(&[6; 32]));
    let verify = |message: &[u8]| verify_request(message, &relay, CHANNEL, NOW);

    assert!(!matches!(verify(&raw), Ok(Some(_))), "nobody has signed");
    let honest = node_request(&requester, &relay.public(), CHANNEL, UnixTime(time), &[7; 64]);
    let request = edited(&honest, &edits_of_request);
    match verify(&request) {
        Ok(Some(node)) => {
            assert_eq!((node, &request), (requester.public(), &honest), "changed, and believed");
            assert!(NOW.0.abs_diff(time) <= MAX_CLOCK_SKEW.as_secs());
        }
        Ok(None) => panic!("a claim was lost"),
        Err(_) => {}
    }

    check(&raw);
    let reply = Reply::Issued(issued()).encode(NOW).expect("within the limits");
    check(&edited(&reply, &edits_of_reply));
});

fn edited(message: &[u8], edits: &[(u16, u8)]) -> Vec<u8> {
    let mut message = message.to_vec();
    for (at, byte) in edits {
        let at = usize::from(*at) % message.len();
        message[at] = *byte;
    }
    message
}

fn check(bytes: &[u8]) {
    let Ok(reply) = Reply::parse(bytes, NOW) else { return };
    assert_eq!(reply.encode(NOW).as_deref(), Ok(bytes), "one encoding");
    assert!(bytes.len() <= MAX_REPLY_LEN);
    if let Reply::Issued(issued) = reply {
        assert!((1..=MAX_REALM_LEN).contains(&issued.realm.len()));
        assert!((1..=MAX_USERNAME_LEN).contains(&issued.username.len()));
        assert!((1..=MAX_PASSWORD_LEN).contains(&issued.password.len()));
        assert!(issued.addrs.len() <= MAX_ADDRS && issued.addrs.iter().all(|addr| addr.port() != 0));
        assert!(issued.expires > NOW && issued.expires <= NOW.plus(MAX_LIFETIME).plus(MAX_CLOCK_SKEW));
    }
}

fn issued() -> RelayCredentials {
    RelayCredentials {
        realm: "keyferry".to_owned(),
        username: "1800003600:someone".to_owned(),
        password: "c2VjcmV0".to_owned(),
        expires: NOW.plus(MAX_LIFETIME),
        addrs: ["192.0.2.1:4600", "[2001:db8::1]:4600"].map(|addr| addr.parse().expect("an address")).to_vec(),
        tls_pin: Some([7; 32]),
    }
}
