//! Where the handshake of a connection ends, by the bytes of the connection.
//!
//! ```text
//! each side     <length> "/multistream/1.0.0\n"   <length> "/noise\n"
//! who dialled   <u16> message 1                   <u16> message 3      then encrypted
//! who accepted  <u16> message 2                                        then encrypted
//! ```
//! (libp2p's connection establishment, and the XX pattern of Noise.)
//!
//! What it is not: a check. Whatever else the bytes are, they count as one or the other.

use crate::base::traffic::{ByteCount, Traffic, TrafficPurpose};

/// Lines of multistream-select that each side sends before Noise begins.
const LINES: u8 = 2;

/// Counts the bytes of one connection.
pub(in crate::reach::rendezvous) struct ConnectionMeter {
    traffic: Traffic,
    received: HandshakeEnd,
    sent: HandshakeEnd,
}

/// What is left of the handshake in one direction.
#[derive(Debug, Clone, Copy)]
struct HandshakeEnd {
    lines: u8,
    messages: u8,
    /// The first byte of a length of two.
    half: Option<u8>,
    /// Bytes that are left of the line or message.
    rest: usize,
}

impl ConnectionMeter {
    /// A connection on which nothing has gone yet.
    pub(in crate::reach::rendezvous) fn new(is_dialled: bool, traffic: Traffic) -> Self {
        let (sent, received) = if is_dialled { (2, 1) } else { (1, 2) };
        Self { traffic, received: HandshakeEnd::after(received), sent: HandshakeEnd::after(sent) }
    }

    /// Counts bytes that were received.
    pub(in crate::reach::rendezvous) fn received(&mut self, bytes: &[u8]) {
        let handshake = self.received.share_of(bytes);
        self.traffic.count(TrafficPurpose::Handshake, ByteCount::received(handshake));
        self.traffic.count(TrafficPurpose::Connection, ByteCount::received(bytes.len() - handshake));
    }

    /// Counts bytes that were sent.
    pub(in crate::reach::rendezvous) fn sent(&mut self, bytes: &[u8]) {
        let handshake = self.sent.share_of(bytes);
        self.traffic.count(TrafficPurpose::Handshake, ByteCount::sent(handshake));
        self.traffic.count(TrafficPurpose::Connection, ByteCount::sent(bytes.len() - handshake));
    }
}

impl HandshakeEnd {
    fn after(messages: u8) -> Self {
        Self { lines: LINES, messages, half: None, rest: 0 }
    }

    /// How many of the next bytes belong to the handshake.
    fn share_of(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.rest > 0 {
                let taken = self.rest.min(bytes.len() - at);
                self.rest -= taken;
                at += taken;
                continue;
            }
            let byte = bytes[at];
            if self.lines > 0 {
                self.lines -= 1;
                self.rest = byte.into();
            } else if self.messages == 0 {
                return at;
            } else if let Some(high) = self.half.take() {
                self.messages -= 1;
                self.rest = u16::from_be_bytes([high, byte]).into();
            } else {
                self.half = Some(byte);
            }
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent_by_dialler() -> Vec<u8> {
        let messages = [&[0, 32][..], &[1; 32], &[0, 200], &[2; 200]].concat();
        [b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec(), messages].concat()
    }

    proptest! {
        #[test]
        fn the_handshake_ends_with_the_last_message_of_noise_however_the_bytes_come(
            behind in 0_usize..300,
            piece in 1_usize..300,
        ) {
            let handshake = sent_by_dialler();
            let bytes = [handshake.clone(), vec![0; behind]].concat();
            let mut end = HandshakeEnd::after(2);
            let share: usize = bytes.chunks(piece).map(|piece| end.share_of(piece)).sum();
            prop_assert_eq!(share, handshake.len());
        }
    }

    #[test]
    fn what_follows_the_handshake_counts_for_the_connection() {
        let traffic = Traffic::default();
        let mut meter = ConnectionMeter::new(true, traffic.clone());
        let handshake = sent_by_dialler();
        meter.sent(&[&handshake[..], &[0; 9]].concat());
        meter.received(b"\x13/multistream/1.0.0\n");
        let shown: Vec<_> = traffic.by_name().collect();
        let first = ByteCount { received: 20, sent: handshake.len() as u64 };
        assert_eq!(shown, [("handshake", first), ("framing", ByteCount::sent(9))]);
    }
}
