use proptest::prelude::*;

use super::*;
use crate::identity::NodeSecret;

const DAY: UtcDay = UtcDay(20_000);
const SHARE: KeyShare = KeyShare([7; 32]);

fn node(seed: u8) -> Sought {
    Sought::Node(NodeSecret::from_bytes(&[seed; 32]).public())
}

fn content(text: &[u8]) -> Sought {
    Sought::Content(ContentHash::of(text))
}

#[test]
fn a_proof_is_the_label_of_a_host_and_comes_back_from_it() {
    for sought in [node(1), content(b"film")] {
        let proof = DialProof::new(&sought, DAY, &SHARE, [3; 16]);
        let name = proof.to_name();
        assert_eq!(name.len(), NAME_LEN);
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)), "{name}");
        assert_eq!(DialProof::parse(&name), Ok(proof));
    }
}

#[test]
fn it_proves_what_was_sought_on_that_day_with_that_key_share_and_nothing_else() {
    for (sought, others) in [(node(1), [node(2), content(b"film")]), (content(b"film"), [content(b"song"), node(1)])] {
        let proof = DialProof::new(&sought, DAY, &SHARE, [3; 16]);
        assert!(proof.proves(&sought, DAY, &SHARE));
        assert!(others.iter().all(|other| !proof.proves(other, DAY, &SHARE)));
        assert!(!proof.proves(&sought, UtcDay(DAY.0 + 1), &SHARE));
        assert!(!proof.proves(&sought, DAY, &KeyShare([8; 32])));
    }
}

#[test]
fn content_is_found_by_a_tag_of_the_day_and_a_node_by_none() {
    let hash = ContentHash::of(b"film");
    let proof = DialProof::new(&Sought::Content(hash), DAY, &SHARE, [3; 16]);
    assert_eq!(proof.tag(), ContentTag::of(&hash, DAY));
    assert_ne!(proof.tag(), ContentTag::of(&hash, UtcDay(DAY.0 + 1)));
    let again = DialProof::new(&Sought::Content(hash), DAY, &SHARE, [4; 16]);
    assert_ne!(proof.nonce(), again.nonce(), "two proofs of one content differ");
}

#[test]
fn names_of_other_hosts_are_no_proof() {
    for name in ["", "example.org", &"a".repeat(51), &"a".repeat(53), &"A".repeat(52), &"1".repeat(52), &"é".repeat(26)]
    {
        assert_eq!(DialProof::parse(name), Err(NoProof { got_len: name.len() }), "{name}");
    }
    // 52 characters have four bits more than 32 bytes.
    assert!(DialProof::parse(&format!("{}b", "a".repeat(51))).is_err());
}

proptest! {
    #[test]
    fn any_text_is_no_proof_or_its_only_form(name in "[a-z2-7]{52}|.{0,80}") {
        if let Ok(proof) = DialProof::parse(&name) {
            prop_assert_eq!(proof.to_name(), name);
        }
    }

    #[test]
    fn a_proof_that_was_changed_anywhere_proves_nothing(bit in 0usize..256, random: [u8; 16]) {
        let sought = node(1);
        let proof = DialProof::new(&sought, DAY, &SHARE, random);
        let mut changed = [proof.nonce.0, proof.mac].concat();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = DialProof::parse(&NAME.encode(&changed)).unwrap();
        prop_assert!(!changed.proves(&sought, DAY, &SHARE));
    }
}
