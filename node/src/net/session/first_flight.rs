//! Reading the first flight of a dialler before TLS does.
//!
//! What it is not: what its bytes mean; see `keyferry_proto::dialling`.

use std::io;

use keyferry_proto::dialling::{FirstFlight, RECORD_HEADER_LEN};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads the first record of a stream. Returns its bytes, and what they show; none if they show no proof. What cannot hold one is not
/// waited for.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Option<FirstFlight>)> {
    let mut header = [0; RECORD_HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let mut bytes = header.to_vec();
    let Some(len) = FirstFlight::len_after(&header) else { return Ok((bytes, None)) };
    bytes.resize(RECORD_HEADER_LEN + len, 0);
    stream.read_exact(&mut bytes[RECORD_HEADER_LEN..]).await?;
    let shown = FirstFlight::parse(&bytes[RECORD_HEADER_LEN..]);
    Ok((bytes, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_that_cannot_hold_a_proof_is_not_waited_for() {
        for head in [[22, 3, 1, 0xff, 0xff], [23, 3, 3, 0, 10]] {
            let (bytes, shown) = read(&mut &head[..]).await.unwrap();
            assert_eq!((bytes.as_slice(), shown), (&head[..], None));
        }
        let cut = read(&mut &[22, 3, 1, 0, 10, 1][..]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
