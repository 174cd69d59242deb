//! Manifests: no bytes make the decoder panic, what it takes is canonical and safe, and its layout can be made.

#![no_main]

use keyferry_proto::{
    collection::{MAGIC, Manifest},
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
    for entry in manifest.entries() {
        assert!(entry.path.components().all(|part| !matches!(part, "" | "." | "..")));
    }
    let layout = Layout::collection(ContentHash::of(bytes), bytes.len() as u64, &manifest).expect("a layout");
    let mut next = 0;
    for item in layout.items() {
        assert_eq!(item.unit_range().start, next, "items follow each other");
        next = item.unit_range().end;
    }
    assert_eq!(next, layout.total_units());
}
