//! What a ClientHello shows of its dialler.
//!
//! ```text
//! record       16 | 03 xx | length u16 | ClientHello                     one record, at most MAX_RECORD_LEN bytes (RFC 8446 §5.1)
//! ClientHello  01 | length u24 | version u16 | random 32 | session id <0..32> | cipher suites <2..> | compression <1..> |
//!              extensions: server name (0) and key share (51) are looked at              (RFC 8446 §4.1.2, RFC 6066 §3)
//! ```
//! What it is not: TLS. The listener's TLS reads the same bytes again, and does not show the key share.

use super::{DialProof, KeyShare};

/// The longest record of a first flight, in bytes. A ClientHello of ours has about 300.
pub const MAX_RECORD_LEN: usize = 4096;
/// The length of the header of a record, in bytes.
pub const RECORD_HEADER_LEN: usize = 5;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_KEY_SHARE: u16 = 51;
const NAME_OF_HOST: u8 = 0;
const GROUP_X25519: u16 = 0x001d;

/// What a dialler has shown in its first flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstFlight {
    /// That it knows what it seeks.
    pub proof: DialProof,
    /// The key that the proof is bound to.
    pub share: KeyShare,
}

impl FirstFlight {
    /// How many bytes follow the header of a record that may hold one.
    pub fn len_after(header: &[u8; RECORD_HEADER_LEN]) -> Option<usize> {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        (header[0] == HANDSHAKE && RECORD_HEADER_LEN + len <= MAX_RECORD_LEN).then_some(len)
    }

    /// Reads what follows the header; none if that shows no proof.
    pub fn parse(handshake: &[u8]) -> Option<Self> {
        let mut message = Fields(handshake);
        if message.number(1)? != usize::from(CLIENT_HELLO) {
            return None;
        }
        let mut hello = Fields(message.list(3)?);
        let _version_and_random = hello.take(2 + 32)?;
        let _session_id = hello.list(1)?;
        let _cipher_suites = hello.list(2)?;
        let _compression = hello.list(1)?;
        let mut extensions = Fields(hello.list(2)?);
        let (mut proof, mut share) = (None, None);
        while !extensions.0.is_empty() {
            let kind = extensions.number(2)? as u16;
            let content = extensions.list(2)?;
            match kind {
                EXTENSION_SERVER_NAME => proof = Some(proof_in(content)?),
                EXTENSION_KEY_SHARE => share = Some(share_in(content)?),
                _ => {}
            }
        }
        Some(Self { proof: proof?, share: share? })
    }
}

/// The proof in a list of server names.
fn proof_in(extension: &[u8]) -> Option<DialProof> {
    let mut names = Fields(Fields(extension).list(2)?);
    if names.number(1)? != usize::from(NAME_OF_HOST) {
        return None;
    }
    let name = std::str::from_utf8(names.list(2)?).ok()?;
    DialProof::parse(name).ok()
}

/// The first key of X25519 in a list of key shares.
fn share_in(extension: &[u8]) -> Option<KeyShare> {
    let mut shares = Fields(Fields(extension).list(2)?);
    while !shares.0.is_empty() {
        let group = shares.number(2)? as u16;
        let key = shares.list(2)?;
        if group == GROUP_X25519 {
            return key.try_into().ok().map(KeyShare);
        }
    }
    None
}

/// Bytes that are read from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    /// A number of up to three bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What has its length in front, in so many bytes.
    fn list(&mut self, bytes_of_len: usize) -> Option<&'a [u8]> {
        let len = self.number(bytes_of_len)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_show_a_proof_or_none(bytes: Vec<u8>) {
            let _ = FirstFlight::parse(&bytes);
        }

        #[test]
        fn what_begins_as_a_first_flight_shows_a_proof_or_none(extensions: Vec<u8>) {
            let len = (extensions.len() as u16).to_be_bytes();
            let hello = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &len, &extensions].concat();
            let len = (hello.len() as u32).to_be_bytes();
            let _ = FirstFlight::parse(&[&[CLIENT_HELLO][..], &len[1..], &hello].concat());
        }
    }

    #[test]
    fn a_record_that_is_too_long_or_no_handshake_holds_none() {
        assert_eq!(FirstFlight::len_after(&[HANDSHAKE, 3, 1, 0xff, 0xff]), None);
        assert_eq!(FirstFlight::len_after(&[23, 3, 3, 0, 10]), None);
        assert_eq!(FirstFlight::len_after(&[HANDSHAKE, 3, 1, 1, 2]), Some(0x0102));
    }
}
