//! Reading STUN messages from a TCP connection by their exact length, so that nothing behind them is swallowed.
//!
//! What it is not: a check of the messages beyond the few bytes that tell their length.

use std::io;

use keyferry_ice::{FrameReader, MAX_MESSAGE_LEN};
use tokio::io::{AsyncRead, AsyncReadExt};

const HEADER_LEN: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The first message of a connection, with how it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// As it is: STUN or TURN.
    Plain(Vec<u8>),
    /// Behind an RFC 4571 length, which is not in it: an ICE check.
    Framed(Vec<u8>),
}

/// Reads the first message. Not cancel-safe: a connection that is given up here has lost its first bytes.
pub(crate) async fn first(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<First> {
    // No message of either form is shorter than this.
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await?;
    if head[4..8] == COOKIE {
        return Ok(First::Plain(rest_of_plain(stream, head).await?));
    }
    if head[6..10] != COOKIE {
        return Err(malformed("neither STUN nor an ICE check"));
    }
    let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
    if !(HEADER_LEN..=MAX_MESSAGE_LEN).contains(&len) {
        return Err(malformed("an ICE check of a length that none has"));
    }
    let mut message = head[2..].to_vec();
    let have = message.len();
    message.resize(len, 0);
    stream.read_exact(&mut message[have..]).await?;
    Ok(First::Framed(message))
}

/// Reads a message behind its RFC 4571 length, which is not in the result: an ICE check, or an answer to one.
pub(crate) async fn framed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut reader = FrameReader::new();
    let mut buffer = [0; MAX_MESSAGE_LEN];
    loop {
        let wanted = reader.wanted();
        let read = stream.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = reader.push(&buffer[..read]);
        if let Some(message) = message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            return Ok(message);
        }
    }
}

/// Reads the next plain message.
pub(crate) async fn plain(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await?;
    if head[4..8] != COOKIE {
        return Err(malformed("not a STUN message"));
    }
    rest_of_plain(stream, head).await
}

async fn rest_of_plain(stream: &mut (impl AsyncRead + Unpin), head: [u8; HEADER_LEN]) -> io::Result<Vec<u8>> {
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([head[2], head[3]]));
    if len > MAX_MESSAGE_LEN {
        return Err(malformed("a STUN message that is too long"));
    }
    let mut message = head.to_vec();
    message.resize(len, 0);
    stream.read_exact(&mut message[HEADER_LEN..]).await?;
    Ok(message)
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[0, 1], &len[..], &COOKIE, &[7; 12], body].concat()
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    /// Reads the first message from bytes that come in pieces, and says what is left unread.
    fn first_of(bytes: &[u8], cuts: &[usize]) -> (io::Result<First>, Vec<u8>) {
        let mut reader = in_pieces(bytes, cuts);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let read = first(&mut reader).await;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            (read, rest)
        })
    }

    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> impl AsyncRead + Unpin + use<> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        let mut pieces = Vec::new();
        for cut in cuts {
            pieces.push(Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(&bytes[from..cut])));
            from = cut;
        }
        pieces.retain(|piece| !piece.as_ref().unwrap().is_empty());
        tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
    }

    proptest! {
        #[test]
        fn whatever_way_the_bytes_are_cut_a_message_is_read_whole_and_nothing_behind_it(
            body in prop::collection::vec(any::<u8>(), 0..200),
            behind in prop::collection::vec(any::<u8>(), 0..50),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
            is_framed: bool,
        ) {
            let message = message(&body);
            let sent = if is_framed { framed(&message) } else { message.clone() };
            let (read, rest) = first_of(&[&sent[..], &behind].concat(), &cuts);
            let expected = if is_framed { First::Framed(message) } else { First::Plain(message) };
            prop_assert_eq!(read.unwrap(), expected);
            prop_assert_eq!(rest, behind);
        }

        #[test]
        fn garbage_is_refused_or_found_too_short(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assume!(bytes.len() < 10 || bytes[4..8] != COOKIE && bytes[6..10] != COOKIE);
            prop_assert!(first_of(&bytes, &[]).0.is_err());
        }
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_kept() {
        let long = message(&vec![0; MAX_MESSAGE_LEN]);
        let short = [&[0, 19][..], &message(&[])].concat();
        for bytes in [long.clone(), framed(&long), short] {
            assert_eq!(first_of(&bytes, &[]).0.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
