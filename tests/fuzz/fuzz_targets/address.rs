//! Addresses, keys, hashes and names as text: no text makes a parser panic, and what it takes it prints again.

#![no_main]

use keyferry_proto::{
    address::{Address, ShareName},
    hash::ContentHash,
    identity::NodeKey,
    path::SafePath,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string(), text, "an address has one form only");
    }
    if let Ok(key) = text.parse::<NodeKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(hash) = text.parse::<ContentHash>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(name) = text.parse::<ShareName>() {
        let address = format!("keyferry:{}", "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2");
        let node = address.parse::<Address>().ok().and_then(|address| address.node());
        let address = Address::named(node.expect("a good key"), name);
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(path) = SafePath::new(text) {
        assert_eq!(path.as_str(), text);
        assert!(
            path.components().all(|part| !matches!(part, "" | "." | "..") && !part.contains(['/', '\\', ':', '\0']))
        );
        assert!(!text.starts_with('/'));
    }
});
