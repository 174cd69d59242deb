use proptest::prelude::*;

use super::*;
use crate::identity::NodeSecret;

fn node() -> NodeKey {
    NodeSecret::from_bytes(&[7; 32]).public()
}

#[test]
fn every_form_has_one_text_that_parses_to_it() {
    let hash = ContentHash::of(b"content");
    let name: ShareName = "Ünï & co.txt".parse().unwrap();
    let hints = vec!["/ip4/192.0.2.1/tcp/4040".parse().unwrap(), "/ip6/2001:db8::1/tcp/4040".parse().unwrap()];
    let cases = [
        (Address::catalogue(node()), format!("keyferry:{}", node())),
        (Address::named(node(), name), format!("keyferry:{}/%C3%9Cn%C3%AF%20%26%20co.txt", node())),
        (
            Address::within(node(), "a".parse().unwrap(), EntryPath::new(&b"b c/caf\xe9"[..]).unwrap()),
            format!("keyferry:{}/a/b%20c/caf%E9", node()),
        ),
        (Address::content(Some(node()), hash), format!("keyferry:{}/{hash}", node())),
        (Address::content(None, hash), format!("keyferry:{hash}")),
        (
            Address::content(None, hash).with_hints(hints).unwrap(),
            format!("keyferry:{hash}?via=/ip4/192.0.2.1/tcp/4040&via=/ip6/2001:db8::1/tcp/4040"),
        ),
    ];
    for (address, text) in cases {
        assert_eq!(address.to_string(), text);
        assert_eq!(text.parse(), Ok(address));
    }
}

#[test]
fn more_hints_than_eight_and_odd_ones_are_refused() {
    let hint: Multiaddr = "/ip4/192.0.2.1/tcp/4040".parse().unwrap();
    let address = Address::catalogue(node());
    assert!(address.clone().with_hints(vec![hint.clone(); MAX_HINTS]).is_ok());
    assert_eq!(address.clone().with_hints(vec![hint; 9]), Err(AddressError::Hints { got: 9 }));
    let slash_in_host = Multiaddr::empty().with(multiaddr::Protocol::Dns4("a/b".into()));
    for odd in [Multiaddr::empty(), slash_in_host] {
        assert!(matches!(address.clone().with_hints(vec![odd]), Err(AddressError::Hint { .. })));
    }
}

#[test]
fn the_longest_address_that_can_be_made_is_short_enough_to_be_parsed() {
    let name: ShareName = "\u{1f600}".repeat(63).parse().unwrap();
    let hint = Multiaddr::empty().with(multiaddr::Protocol::Dns4("<".repeat(250).into()));
    assert!(hint.len() > 250);
    let path = EntryPath::new(vec!["\u{1f600}".repeat(63); 16].join("/")).unwrap();
    let address = Address::within(node(), name, path).with_hints(vec![hint; MAX_HINTS]).unwrap();
    assert_eq!(address.to_string().parse(), Ok(address));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let message = |text: String| text.parse::<Address>().unwrap_err().to_string();
    assert!(message(format!("keyferry:{}/a b", node())).ends_with(&format!("written as keyferry:{}/a%20b", node())));
    assert!(message(node().to_string()).contains("begins with \"keyferry:\""));
    // What a stranger wrote does not reach the terminal as it is.
    assert!(!message(format!("keyferry:{}?\u{1b}[2J", node())).contains('\u{1b}'));
    assert!(!message(format!("keyferry:{}/\u{1b}[2J", node())).contains('\u{1b}'));
    assert!(!message(format!("keyferry:{}/a/\u{1b}[2J", node())).contains('\u{1b}'));
}

/// Texts that come near to addresses.
fn near_addresses() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("keyferry:".to_owned()),
        Just(node().to_string()),
        Just(ContentHash::EMPTY.to_string()),
        Just("?via=".to_owned()),
        Just("&via=".to_owned()),
        Just("/ip4/192.0.2.1/tcp/1".to_owned()),
        "[/%?&=:a-fA-F0-9]{0,6}",
        "/(ip4|ip6|tcp|p2p|dns|dns4|unix|onion3|certhash|http-path|memory|x-parity-ws)(/[a-z0-9.:%]{0,8})?",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn parsing_any_text_never_panics_and_what_parses_prints_as_it_was(text in near_addresses()) {
        for text in [format!("keyferry:{}{text}", node()), format!("keyferry:{}?via={text}", node()), text] {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }

    #[test]
    fn every_file_name_makes_a_name_that_survives_the_text_form(file in prop::collection::vec(any::<u8>(), 0..300)) {
        let address = Address::named(node(), ShareName::from_file_name(&file));
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn every_name_survives_the_text_form(text in "\\PC{1,40}") {
        let address = Address::named(node(), ShareName::from_file_name(text.as_bytes()));
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }
}
