//! Which protocol a connection speaks, told from its first bytes.
//!
//! ```text
//! 13 "/multistream/1.0.0"            libp2p
//! 16 03                              TLS: the ClientHello of a session, or of `turns:`
//! 00|01 xx xx xx 21 12 a4 42         STUN or TURN (RFC 8489 §5: magic cookie at offset 4)
//! xx xx 00|01 xx xx xx 21 12 a4 42   an ICE check behind its RFC 4571 length (magic cookie at offset 6)
//! ```
//!
//! What it is not: reading them. Nothing is consumed from the socket, and nothing behind these bytes is looked at.

/// The greatest number of bytes that are looked at.
pub(super) const PEEK_LEN: usize = MULTISTREAM.len();

const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0";
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];
const STUN_COOKIE: &[u8] = &[0x21, 0x12, 0xa4, 0x42];

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortVerdict {
    /// libp2p's multistream-select.
    Libp2p,
    /// A TLS ClientHello.
    Tls,
    /// STUN, plain or behind an RFC 4571 length.
    Stun,
    /// None of these, whatever follows.
    Unknown,
    /// Still possible; more bytes are needed.
    Undecided,
}

/// Judges the first bytes of a connection; any number of them may be given.
pub(super) fn classify(bytes: &[u8]) -> PortVerdict {
    let candidates = [
        (matches(bytes, 0, MULTISTREAM), PortVerdict::Libp2p),
        (matches(bytes, 0, TLS_HANDSHAKE), PortVerdict::Tls),
        (stun_at(bytes, 0), PortVerdict::Stun),
        (stun_at(bytes, 2), PortVerdict::Stun),
    ];
    if let Some((_, verdict)) = candidates.iter().find(|(fits, _)| *fits == Fit::Whole) {
        return *verdict;
    }
    if candidates.iter().any(|(fits, _)| *fits == Fit::SoFar) { PortVerdict::Undecided } else { PortVerdict::Unknown }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Whole,
    SoFar,
    Not,
}

/// Whether `pattern` stands at `offset`, as far as there are bytes.
fn matches(bytes: &[u8], offset: usize, pattern: &[u8]) -> Fit {
    let have = bytes.get(offset..).unwrap_or_default();
    let common = have.len().min(pattern.len());
    match have[..common] == pattern[..common] {
        false => Fit::Not,
        true if common == pattern.len() => Fit::Whole,
        true => Fit::SoFar,
    }
}

/// Whether a STUN header starts at `offset`: its two top bits are zero, its type is below 0x0200, its length is a
/// multiple of four, and the magic cookie is where it belongs.
fn stun_at(bytes: &[u8], offset: usize) -> Fit {
    let header = bytes.get(offset..).unwrap_or_default();
    let class_is_wrong = header.first().is_some_and(|byte| *byte > 1);
    let length_is_wrong = header.get(3).is_some_and(|byte| byte % 4 != 0);
    if class_is_wrong || length_is_wrong {
        return Fit::Not;
    }
    matches(bytes, offset + 4, STUN_COOKIE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun() -> Vec<u8> {
        let mut message = vec![0x00, 0x01, 0x00, 0x08];
        message.extend(STUN_COOKIE);
        message.extend([7; 12]);
        message
    }

    #[test]
    fn the_four_protocols_are_told_apart() {
        let mut framed = vec![0x00, 0x1c];
        framed.extend(stun());
        assert_eq!(classify(b"\x13/multistream/1.0.0\n"), PortVerdict::Libp2p);
        assert_eq!(classify(&[0x16, 0x03, 0x01, 0x02]), PortVerdict::Tls);
        assert_eq!(classify(&stun()), PortVerdict::Stun);
        assert_eq!(classify(&framed), PortVerdict::Stun);
    }

    #[test]
    fn what_no_protocol_begins_with_is_unknown_at_its_first_wrong_byte() {
        assert_eq!(classify(b"\x13/multistream/2"), PortVerdict::Unknown);
        assert_eq!(classify(b"GET / HTTP/1.1\r\n"), PortVerdict::Unknown);
        assert_eq!(classify(b"SSH-2.0-x"), PortVerdict::Unknown);
        assert_eq!(classify(&[0x16, 0x02, 0x55]), PortVerdict::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided_within_the_peeked_length(bytes: [u8; PEEK_LEN]) {
            prop_assert_ne!(classify(&bytes), PortVerdict::Undecided);
        }

        #[test]
        fn a_prefix_of_what_is_accepted_is_never_unknown(cut in 0usize..20, which in 0usize..4) {
            let framed = [vec![0x00, 0x1c], stun()].concat();
            let whole: &[&[u8]] = &[MULTISTREAM, TLS_HANDSHAKE, &stun(), &framed];
            let bytes = whole[which];
            prop_assert_ne!(classify(&bytes[..cut.min(bytes.len())]), PortVerdict::Unknown);
        }
    }
}
