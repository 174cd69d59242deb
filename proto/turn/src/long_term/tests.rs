//! Both halves of long-term credentials against each other, and against the samples of the RFCs.

use data_encoding::HEXLOWER_PERMISSIVE;
use stun_types::{
    attribute::{AttributeStaticType, MessageIntegrity, MessageIntegritySha256, Userhash, Username},
    message::{
        BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageWrite, MessageWriteExt, MessageWriteVec,
    },
};

use super::*;

/// RFC 5769 §2.4.
const MD5_SAMPLE: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe38\
                          2b90000001500\
                          1c662f2f3439396b3935346436 4f4c33346f4c394653547679363473410014000b6578616d706c652e6f7267\
                          0000080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
/// RFC 8489 §B.1, with the length of erratum 6268.
const SHA256_SAMPLE: &str = "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c67804\
                             17da0f24819415569e60b205c46e41407f170400150029\
                             6f624d61744a6f73324141414366 2f2f343939 6b393534 64364f4c33346f4c3946535476793634734100\
                             00000014000b6578616d706c652e6f726700001d000400020000001c0020\
                             b5c7bf005b6c52a21c51c5e892f819241 36296cb927c43149309278cc6518e65";
const SAMPLE_USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
/// What `The\u{AD}M\u{AA}tr\u{2168}` is prepared to.
const SAMPLE_PASSWORD: &str = "TheMatrIX";
const SAMPLE_REALM: &str = "example.org";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

fn request() -> MessageWriteVec {
    Message::builder_request(BINDING, MessageWriteVec::new())
}

fn credentials() -> UserCredentials {
    UserCredentials::new("user", "password").unwrap()
}

fn challenge(algorithms: Option<&[PasswordAlgorithm]>) -> Challenge {
    let features = SecurityFeatures { password_algorithms: algorithms.is_some(), username_anonymity: false };
    let nonce = if algorithms.is_some() { features.nonce("nonce") } else { "nonce".to_owned() };
    Challenge { realm: "realm".to_owned(), nonce, algorithms: algorithms.map(AlgorithmList::new) }
}

/// What the server makes of a request: its claim, and whether it is proven.
fn served(request: &[u8], offered: Option<&AlgorithmList>, password: &str) -> (Claim, bool) {
    let request = Message::from_bytes(request).unwrap();
    let claim = Claim::read(&request, offered).unwrap().expect("a proof");
    let key = Key::new(claim.protection, "user", &claim.realm, password);
    let is_proven = claim.user.is("user", &claim.realm) && key.proves(&request);
    (claim, is_proven)
}

#[test]
fn the_sample_of_rfc_5769_is_proven() {
    let sample = bytes(MD5_SAMPLE);
    let message = Message::from_bytes(&sample).unwrap();
    let claim = Claim::read(&message, None).unwrap().unwrap();
    assert_eq!(claim.user, ClaimedUser::Name(SAMPLE_USER.to_owned()));
    assert_eq!(claim.protection, Protection::Sha1);
    assert!(Key::new(claim.protection, SAMPLE_USER, &claim.realm, SAMPLE_PASSWORD).proves(&message));
    assert!(!Key::new(claim.protection, SAMPLE_USER, &claim.realm, "TheMatrix").proves(&message));
}

#[test]
fn the_sample_of_rfc_8489_is_proven() {
    let sample = bytes(SHA256_SAMPLE);
    let message = Message::from_bytes(&sample).unwrap();
    let user = ClaimedUser::Hash(*message.attribute::<Userhash>().unwrap().hash());
    assert!(user.is(SAMPLE_USER, SAMPLE_REALM));
    // It repeats no PASSWORD-ALGORITHMS, which §9.2.4 demands.
    let offered = AlgorithmList::new(&[PasswordAlgorithm::Sha256]);
    assert_eq!(Claim::read(&message, Some(&offered)), Err(MalformedClaim::BidDown));
    let protection = Protection::Sha256(PasswordAlgorithm::Sha256);
    assert!(Key::new(protection, SAMPLE_USER, SAMPLE_REALM, SAMPLE_PASSWORD).proves(&message));
    assert!(!Key::new(protection, SAMPLE_USER, "example.com", SAMPLE_PASSWORD).proves(&message));
}

#[test]
fn sha256_is_as_stun_types_has_it() {
    let theirs = LongTermKeyCredentials::new("user".to_owned(), "password".to_owned(), "realm".to_owned());
    let theirs = theirs.make_key(IntegrityAlgorithm::Sha256);
    let ours = Key::new(Protection::Sha256(PasswordAlgorithm::Sha256), "user", "realm", "password");
    let signed = ours.sign(request());
    assert!(Message::from_bytes(&signed).unwrap().validate_integrity_with_key(&theirs).is_ok());
    let mut message = request();
    message.add_message_integrity_with_key(&theirs, IntegrityAlgorithm::Sha256).unwrap();
    message.add_fingerprint().unwrap();
    assert!(ours.proves(&Message::from_bytes(&message.finish()).unwrap()));
}

#[test]
fn a_client_answers_each_kind_of_challenge_and_the_server_believes_it() {
    use PasswordAlgorithm::{Md5, Sha256};
    let cases: [(Option<&[PasswordAlgorithm]>, Protection); 4] = [
        (None, Protection::Sha1),
        (Some(&[Sha256, Md5]), Protection::Sha256(Sha256)),
        (Some(&[Md5, Sha256]), Protection::Sha256(Md5)),
        (Some(&[Md5]), Protection::Sha256(Md5)),
    ];
    for (algorithms, protection) in cases {
        let challenge = challenge(algorithms);
        let mut response =
            Message::builder_error(&Message::from_bytes(&request().finish()).unwrap(), MessageWriteVec::new());
        challenge.add_to(&mut response).unwrap();
        let read = Challenge::read(&Message::from_bytes(&response.finish()).unwrap()).unwrap();
        assert_eq!(read, challenge);
        let signed = Authorization::new(credentials(), read).unwrap().sign(request());
        let (claim, is_proven) = served(&signed, challenge.algorithms.as_ref(), "password");
        assert_eq!((claim.protection, is_proven), (protection, true));
        assert!(!served(&signed, challenge.algorithms.as_ref(), "another").1);
    }
}

#[test]
fn the_client_believes_a_response_of_the_same_key_alone() {
    for algorithms in [None, Some([PasswordAlgorithm::Sha256].as_slice())] {
        let authorization = Authorization::new(credentials(), challenge(algorithms)).unwrap();
        let protection = authorization.challenge().protection().unwrap();
        let proven_by = |password| {
            let response = Key::new(protection, "user", "realm", password).sign(request());
            authorization.proves(&Message::from_bytes(&response).unwrap())
        };
        assert!(proven_by("password"));
        assert!(!proven_by("another"));
        assert!(!authorization.proves(&Message::from_bytes(&request().finish()).unwrap()));
    }
}

#[test]
fn a_stripped_challenge_is_refused() {
    let stripped = Challenge { algorithms: None, ..challenge(Some(&[PasswordAlgorithm::Sha256])) };
    assert_eq!(Authorization::new(credentials(), stripped).unwrap_err(), ChallengeError::BidDown);
    let mut authorization = Authorization::new(credentials(), challenge(Some(&[PasswordAlgorithm::Sha256]))).unwrap();
    assert_eq!(authorization.renew(challenge(None)), Err(ChallengeError::BidDown));
}

#[test]
fn a_server_refuses_other_algorithms_than_it_offered() {
    let narrowed = challenge(Some(&[PasswordAlgorithm::Md5]));
    let signed = Authorization::new(credentials(), narrowed).unwrap().sign(request());
    let signed = Message::from_bytes(&signed).unwrap();
    let offered = AlgorithmList::new(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
    assert_eq!(Claim::read(&signed, Some(&offered)), Err(MalformedClaim::BidDown));
    assert_eq!(Claim::read(&signed, None), Err(MalformedClaim::BidDown));
}

#[test]
fn a_proof_without_a_user_is_malformed_and_no_proof_is_no_claim() {
    let key = Key::new(Protection::Sha1, "user", "realm", "password");
    let signed = key.sign(request());
    assert_eq!(Claim::read(&Message::from_bytes(&signed).unwrap(), None), Err(MalformedClaim::Incomplete));
    assert_eq!(Claim::read(&Message::from_bytes(&request().finish()).unwrap(), None), Ok(None));
}

#[test]
fn a_server_that_hides_user_names_is_told_the_hash() {
    let features = SecurityFeatures { password_algorithms: true, username_anonymity: true };
    let algorithms = AlgorithmList::new(&[PasswordAlgorithm::Sha256]);
    let challenge =
        Challenge { realm: "realm".to_owned(), nonce: features.nonce("x"), algorithms: Some(algorithms.clone()) };
    let signed = Authorization::new(credentials(), challenge).unwrap().sign(request());
    assert!(!Message::from_bytes(&signed).unwrap().has_attribute(Username::TYPE));
    assert!(served(&signed, Some(&algorithms), "password").1);
}

#[test]
fn a_truncated_proof_is_refused() {
    let key = Key::new(Protection::Sha256(PasswordAlgorithm::Sha256), "user", "realm", "password");
    let mut signed = key.sign(request());
    // Half of the HMAC, as RFC 8489 §14.6 allows to usages that say so.
    signed.truncate(signed.len() - 16);
    signed[3] -= 16;
    let at = signed.len() - 16 - 1;
    signed[at] = 16;
    let message = Message::from_bytes(&signed).unwrap();
    assert!(message.has_attribute(MessageIntegritySha256::TYPE) && !message.has_attribute(MessageIntegrity::TYPE));
    assert!(!key.proves(&message));
}

#[test]
fn nothing_that_is_printed_shows_a_password_or_a_key() {
    let authorization = Authorization::new(UserCredentials::new("user", "s3cret").unwrap(), challenge(None)).unwrap();
    let text = format!("{authorization:?} {:?}", UserCredentials::new("user", "s3cret").unwrap());
    assert!(text.contains("user") && !text.contains("s3cret") && !text.contains("bytes"), "{text}");
}
