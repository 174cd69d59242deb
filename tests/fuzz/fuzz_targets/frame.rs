//! Frames: however a stream is cut into pieces, the same frames come out, and memory stays within the limit.

#![no_main]

use keyferry_proto::frame::{FrameDecoder, FrameError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 * 1024;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, piece) = input;
    let piece = usize::from(piece) + 1;
    assert_eq!(frames(&bytes, bytes.len().max(1)), frames(&bytes, piece));
});

type Frames = (Vec<Vec<u8>>, Option<FrameError>);

fn frames(bytes: &[u8], piece: usize) -> Frames {
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut found = Vec::new();
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            assert!(decoder.wants() >= 1 && decoder.wants() <= LIMIT);
            match decoder.accept(&mut rest) {
                Ok(Some(body)) => {
                    assert!(body.len() <= LIMIT);
                    found.push(body);
                }
                Ok(None) => {}
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}
