//! The first flight of a dialler, as a listener reads it before TLS does: what it seeks, and the proof that it knows that.
//!
//! ```text
//! record       16 | 03 xx | length u16 | ClientHello                     one record, at most MAX_LEN bytes (RFC 8446 §5.1)
//! ClientHello  01 | length u24 | version u16 | random 32 | session id <0..32> | cipher suites <2..> | compression <1..> |
//!              extensions: server name (0) and key share (51) are looked at              (RFC 8446 §4.1.2, RFC 6066 §3)
//! ```
//! What it is not: TLS. rustls reads the same bytes again, and does not show the key share.

use std::io;

use keyferry_proto::dialling::{DialProof, KeyShare};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest record of a first flight. A ClientHello of ours has about 300 bytes.
const MAX_LEN: usize = 4096;

const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_KEY_SHARE: u16 = 51;
const NAME_OF_HOST: u8 = 0;
const GROUP_X25519: u16 = 0x001d;

/// What a dialler has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstFlight {
    pub(super) proof: DialProof,
    pub(super) share: KeyShare,
}

/// Reads the first record of a stream. Returns its bytes, and what they show; none if they show no proof.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Option<FirstFlight>)> {
    let mut bytes = vec![0; RECORD_HEADER];
    stream.read_exact(&mut bytes).await?;
    let len = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    if bytes[0] != HANDSHAKE || RECORD_HEADER + len > MAX_LEN {
        return Ok((bytes, None));
    }
    bytes.resize(RECORD_HEADER + len, 0);
    stream.read_exact(&mut bytes[RECORD_HEADER..]).await?;
    let shown = shown(&bytes[RECORD_HEADER..]);
    Ok((bytes, shown))
}

/// What a ClientHello shows.
fn shown(handshake: &[u8]) -> Option<FirstFlight> {
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
    Some(FirstFlight { proof: proof?, share: share? })
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
            let _ = shown(&bytes);
        }

        #[test]
        fn what_begins_as_a_first_flight_shows_a_proof_or_none(extensions: Vec<u8>) {
            let len = (extensions.len() as u16).to_be_bytes();
            let hello = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &len, &extensions].concat();
            let len = (hello.len() as u32).to_be_bytes();
            let _ = shown(&[&[CLIENT_HELLO][..], &len[1..], &hello].concat());
        }
    }

    #[tokio::test]
    async fn a_record_that_is_too_long_or_no_handshake_is_not_waited_for() {
        for head in [[HANDSHAKE, 3, 1, 0xff, 0xff], [23, 3, 3, 0, 10]] {
            let (bytes, shown) = read(&mut &head[..]).await.unwrap();
            assert_eq!((bytes.as_slice(), shown), (&head[..], None));
        }
        let cut = read(&mut &[HANDSHAKE, 3, 1, 0, 10, 1][..]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
