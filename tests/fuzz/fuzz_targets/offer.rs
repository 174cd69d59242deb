//! Offers and catalogue entries: no bytes make a decoder panic, and what it takes is canonical.
//!
//! Signatures stop a fuzzer cold, so the input is also signed as a node that lies would do it.

#![no_main]

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    catalogue::SignedEntry,
    identity::{NodeKey, NodeSecret},
    offer::{OFFER_VERSION, RecordKey, SealedOffer, SignedOffer, seal},
};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_790_000_000);
const OFFER_DOMAIN: &[u8] = b"keyferry offer v2\0";
const ENTRY_DOMAIN: &[u8] = b"keyferry catalogue entry v2\0";

fuzz_target!(|input: &[u8]| {
    let secret = NodeSecret::from_bytes(&[7; 32]);
    let node = secret.public();
    let _ = SignedOffer::decode(input, NOW);
    let signature = secret.sign(&[OFFER_DOMAIN, input].concat());
    let signed = [&[OFFER_VERSION], &node.as_bytes()[..], input, &signature].concat();
    if let Ok(offer) = SignedOffer::decode(&signed, NOW) {
        assert_eq!(offer.as_bytes(), signed);
        let again = SignedOffer::sign(offer.offer().clone(), &secret).expect("what was decoded can be signed");
        assert_eq!(again.offer(), offer.offer());
        let sealed = seal(&again, &secret, NOW.day(), [0; 24]).expect("its own secret");
        if let Ok(parsed) = SealedOffer::parse(sealed.as_bytes(), &sealed.key(), NOW) {
            assert_eq!(parsed.open(&node, NOW).as_ref(), Ok(&offer));
        }
    }
    if let Some((key, record)) = input.split_first_chunk::<32>() {
        if let Ok(sealed) = SealedOffer::parse(record, &RecordKey::from_bytes(*key), NOW) {
            assert_eq!(sealed.as_bytes(), record);
            let _ = sealed.open(&node, NOW);
        }
        let _ = NodeKey::from_bytes(key);
    }
    let signature = secret.sign(&[ENTRY_DOMAIN, input].concat());
    for bytes in [input.to_vec(), [input, &signature].concat()] {
        if let Ok(Ok(entry)) = SignedEntry::from_bytes(bytes).map(|entry| entry.verify(&node)) {
            let again = SignedEntry::sign(&entry, &secret).verify(&node).expect("what was decoded can be signed");
            assert_eq!(again, entry);
        }
    }
});
