//! Checks on a TCP connection: however the bytes are cut into pieces, the same messages come out, never a byte beyond a
//! frame is asked for, and finding out whom a message is for does not panic.

#![no_main]

use keyferry_ice::{FrameReader, FramingError, MAX_MESSAGE_LEN, addressed_ufrag, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, pieces) = input;
    let whole = messages(&bytes, &[u8::MAX]);
    assert_eq!(messages(&bytes, &pieces), whole);
    let (messages, _, rest) = whole;
    for message in &messages {
        drop(addressed_ufrag(message));
    }
    // What was read is what was framed, byte for byte.
    let framed: Vec<u8> = messages.iter().filter_map(|message| frame(message)).flatten().collect();
    assert_eq!([framed, rest].concat(), bytes);
    drop(addressed_ufrag(&bytes));
});

/// The messages in some bytes, the error that ended them, and the bytes that belong to none.
fn messages(bytes: &[u8], pieces: &[u8]) -> (Vec<Vec<u8>>, Option<FramingError>, Vec<u8>) {
    let mut reader = FrameReader::new();
    let mut pieces = pieces.iter().cycle();
    let (mut found, mut read, mut complete) = (Vec::new(), 0, 0);
    while read < bytes.len() {
        let wanted = reader.wanted();
        assert!((1..=MAX_MESSAGE_LEN).contains(&wanted));
        let piece = usize::from(pieces.next().copied().unwrap_or_default()) + 1;
        let len = piece.min(wanted).min(bytes.len() - read);
        match reader.push(&bytes[read..read + len]) {
            Ok(message) => {
                read += len;
                if let Some(message) = message {
                    assert!(message.len() <= MAX_MESSAGE_LEN);
                    found.push(message);
                    complete = read;
                }
            }
            Err(error) => return (found, Some(error), bytes[complete..].to_vec()),
        }
    }
    (found, None, bytes[complete..].to_vec())
}
