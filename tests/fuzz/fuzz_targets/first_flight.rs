//! What a stranger sends first: no bytes make the reader panic, and a proof that it finds was there.

#![no_main]

use keyferry_proto::dialling::{FirstFlight, RECORD_HEADER_LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    check(input);
    if let Some((header, rest)) = input.split_first_chunk::<RECORD_HEADER_LEN>()
        && let Some(len) = FirstFlight::len_after(header)
    {
        check(&rest[..len.min(rest.len())]);
    }
});

fn check(handshake: &[u8]) {
    if let Some(FirstFlight { proof, share }) = FirstFlight::parse(handshake) {
        let has = |part: &[u8]| handshake.windows(part.len()).any(|window| window == part);
        assert!(has(proof.to_name().as_bytes()) && has(&share.0));
    }
}
