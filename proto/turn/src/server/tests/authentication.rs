//! Who is believed: RFC 8489 §9.2, and credentials that run out.

use std::time::Duration;

use stun_types::{
    attribute::{
        AttributeType, ErrorCode, PasswordAlgorithmValue, PasswordAlgorithms, RawAttribute, Realm, UnknownAttributes,
    },
    message::{BINDING, IntegrityAlgorithm, MessageWrite, MessageWriteExt},
};
use turn_types::message::ALLOCATE;

use super::relay::{CLIENT_IP, Relay, User, request, tcp};
use crate::server::ServerOutput;

#[test]
fn a_request_without_credentials_is_told_how_to_authenticate() {
    let mut relay = Relay::new();
    let client = relay.client();
    let answer = relay.ask(client, &request(ALLOCATE, &[&tcp()]).finish());
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.get::<Realm>().realm(), "keyferry");
    assert!(answer.nonce().starts_with("obMatJos2"));
    let both = [PasswordAlgorithmValue::SHA256, PasswordAlgorithmValue::MD5];
    assert_eq!(answer.get::<PasswordAlgorithms>().algorithms(), both);
    assert_eq!(relay.server.counters().unauthenticated, 1);
}

#[test]
fn both_password_algorithms_are_believed_and_answered_in_kind() {
    for (user, integrity) in
        [(User::ada(), IntegrityAlgorithm::Sha256), (User::ada().with_md5(), IntegrityAlgorithm::Sha1)]
    {
        let mut user = user;
        let mut relay = Relay::new();
        let client = relay.client();
        relay.greet(client, &mut user);
        let answer = relay.ask(client, &user.request(ALLOCATE, &[&tcp()]));
        assert_eq!((answer.code(), answer.integrity(&user)), (0, Some(integrity)));
    }
}

#[test]
fn a_client_that_knows_no_password_algorithms_uses_md5() {
    let mut relay = Relay::new();
    let mut user = User::ada().with_md5();
    let client = relay.client();
    relay.greet(client, &mut user);
    let message = user.sign(request(ALLOCATE, &[&tcp()]), false);
    assert_eq!(relay.ask(client, &message).code(), 0);
}

#[test]
fn a_list_of_algorithms_that_was_cut_down_on_the_way_is_refused() {
    let mut relay = Relay::new();
    let mut user = User::ada().with_md5();
    let client = relay.client();
    relay.greet(client, &mut user);
    let only_md5 = PasswordAlgorithms::new(&[PasswordAlgorithmValue::MD5]);
    let chosen = stun_types::attribute::PasswordAlgorithm::new(PasswordAlgorithmValue::MD5);
    let cut = user.sign(request(ALLOCATE, &[&tcp(), &only_md5, &chosen]), false);
    assert_eq!(relay.ask(client, &cut).code(), 400, "a cut list");
    let alone = user.sign(request(ALLOCATE, &[&tcp(), &only_md5]), false);
    assert_eq!(relay.ask(client, &alone).code(), 400, "a list and no choice");
    let alone = user.sign(request(ALLOCATE, &[&tcp(), &chosen]), false);
    assert_eq!(relay.ask(client, &alone).code(), 400, "a choice and no list");
}

#[test]
fn a_nonce_that_has_run_out_is_replaced() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    for _ in 0..6 {
        relay.pass(Duration::from_secs(590));
        let _ = relay.refresh(client, &user, 1200);
    }
    relay.pass(Duration::from_secs(100));
    let answer = relay.refresh(client, &user, 600);
    assert_eq!(answer.code(), 438);
    assert_eq!(answer.integrity(&user), None, "such an answer is not signed");
    user.nonce = Some(answer.nonce());
    assert_eq!(relay.refresh(client, &user, 600).code(), 0);
    assert_eq!(relay.server.counters().stale_nonce, 1);
}

#[test]
fn wrong_unknown_expired_and_forged_credentials_are_nobodys() {
    let mut late = User::issued("carol");
    let nobodys = [
        User::named("ada", "wrong"),
        User::named("eve", "lovelace"),
        User::named("1900000000:eve", "made up"),
        User::named(&late.username.replace("carol", "eve"), &late.password),
        User::named(&late.username.replacen('1', "2", 1), &late.password),
    ];
    for mut user in nobodys {
        let mut relay = Relay::new();
        let client = relay.client();
        relay.greet(client, &mut user);
        let answer = relay.ask(client, &user.request(ALLOCATE, &[&tcp()]));
        assert_eq!(answer.code(), 401, "{}", user.username);
        assert_eq!(relay.server.counters().forged, 1, "{}", user.username);
        relay.assert_empty();
    }
    let mut relay = Relay::new();
    let client = relay.allocated(&mut late);
    relay.pass(Duration::from_secs(590));
    assert_eq!(relay.refresh(client, &late, 3600).code(), 0);
    relay.pass(Duration::from_secs(3020));
    let control = relay.client();
    relay.greet(control, &mut late);
    assert_eq!(relay.ask(control, &late.request(ALLOCATE, &[&tcp()])).code(), 401, "it has run out");
    assert_eq!(relay.refresh(client, &late, 3600).code(), 401, "and an allocation is not refreshed with it");
    assert_eq!(relay.server.counters().expired, 2);
}

#[test]
fn a_new_issue_of_ones_own_credentials_goes_on_where_the_old_one_ends() {
    let mut relay = Relay::new();
    let mut old = User::issued("carol");
    let client = relay.allocated(&mut old);
    let issued = super::relay::secret().issue("carol", super::relay::EPOCH.plus(Duration::from_secs(9999))).unwrap();
    let new = User { nonce: old.nonce.clone(), ..User::named(issued.username(), issued.password()) };
    assert_eq!(relay.refresh(client, &new, 600).code(), 0);
    let mut other = User::issued("dave");
    other.nonce = old.nonce;
    assert_eq!(relay.refresh(client, &other, 600).code(), 441, "somebody else");
}

#[test]
fn a_message_that_is_repeated_elsewhere_is_not_believed() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let message = user.request(ALLOCATE, &[&tcp()]);
    assert_eq!(relay.ask(client, &message).code(), 0);
    let thief = relay.client_from("198.51.100.66:40000");
    assert_eq!(relay.ask(thief, &message).code(), 438, "the nonce is for another host");
    let later = relay.client();
    relay.pass(Duration::from_secs(3600));
    let later = if relay.closed(later) { relay.client() } else { later };
    assert_eq!(relay.ask(later, &message).code(), 438, "the nonce has run out");
}

#[test]
fn an_unknown_attribute_that_must_be_understood_gets_420_and_one_that_need_not_is_passed_over() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let unknown = RawAttribute::new(AttributeType::new(0x7abc), &[1, 2, 3, 4]);
    let answer = relay.ask(client, &user.request(ALLOCATE, &[&tcp(), &unknown]));
    assert_eq!(answer.code(), 420);
    assert!(answer.get::<UnknownAttributes>().has_attribute(AttributeType::new(0x7abc)));
    assert!(answer.integrity(&user).is_some());
    let optional = RawAttribute::new(AttributeType::new(0xfabc), &[1, 2, 3, 4]);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&tcp(), &optional])).code(), 0);
}

#[test]
fn credentials_are_needed_in_whole() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let mut message = request(ALLOCATE, &[&tcp()]);
    message.add_message_integrity(&user.credentials(), IntegrityAlgorithm::Sha1).unwrap();
    assert_eq!(relay.ask(client, &message.finish()).code(), 400);
}

#[test]
fn binding_needs_no_credentials_and_works_before_and_after_an_allocation() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    for _ in 0..2 {
        let answer = relay.ask(client, &request(BINDING, &[]).finish());
        let mapped = answer.get::<stun_types::attribute::XorMappedAddress>();
        assert_eq!(mapped.addr(answer.message().transaction_id()).ip().to_string(), CLIENT_IP);
        if user.nonce.is_none() {
            relay.allocate_on(client, &mut user);
        }
    }
}

#[test]
fn the_error_tells_its_reason_in_words() {
    let mut relay = Relay::new();
    let client = relay.client();
    let answer = relay.ask(client, &request(ALLOCATE, &[&tcp()]).finish());
    assert!(!answer.get::<ErrorCode>().reason().is_empty());
    assert!(!relay.outputs.iter().any(|output| matches!(output, ServerOutput::Listen { .. })));
}
