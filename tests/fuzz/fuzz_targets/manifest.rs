//! Manifests: no bytes make the decoder panic, what it takes is canonical and safe, its layout can be made, and its names fit any file system.

#![no_main]

use keyferry_proto::{
    collection::{
        EntryKind, EntryName, MAGIC, Manifest,
        fitting::{FittedNames, NameRules},
    },
    hash::ContentHash,
    transfer::layout::Layout,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    check(input);
    check(&[&MAGIC, input].concat());
});

fn check(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    assert_eq!(manifest.encode(), bytes, "a manifest has one form only");
    for (entry, index) in manifest.entries().zip(0..) {
        assert!(!matches!(entry.name.as_bytes(), b"" | b"." | b"..") && !entry.name.as_bytes().contains(&b'/'));
        assert_eq!(manifest.find(&manifest.path(index)), Some(index), "an entry is where its path says");
    }
    fit(&manifest);
    let layout = Layout::collection(ContentHash::of(bytes), bytes.len() as u64, &manifest).expect("a layout");
    let mut next = 0;
    for item in layout.items() {
        assert_eq!(item.unit_range().start, next, "items follow each other");
        next = item.unit_range().end;
    }
    assert_eq!(next, layout.total_units());
}

/// Fits the names to a file system that takes little.
fn fit(manifest: &Manifest) {
    let refused = (1..32).chain(*b":*?\"<>|\\").collect();
    let rules = NameRules { refused, is_utf8: true, trims: true, has_devices: true, folds: true, max_len: 100 };
    let fitted = FittedNames::of(manifest, &rules);
    let mut seen = std::collections::HashSet::new();
    for index in 0..manifest.len() as u32 {
        let path = fitted.path(manifest, index);
        for name in path.split(|byte| *byte == b'/') {
            assert!(EntryName::new(name).is_ok() && name.len() <= rules.max_len && std::str::from_utf8(name).is_ok());
            assert!(!name.iter().any(|byte| rules.refused.contains(byte)));
        }
        assert!(seen.insert(path.to_ascii_lowercase()), "two entries have one name");
        let is_link = matches!(manifest.entry(index).map(|entry| entry.kind), Some(EntryKind::Link(_)));
        assert_eq!(fitted.target(manifest, index, &rules).is_some(), is_link);
    }
}
