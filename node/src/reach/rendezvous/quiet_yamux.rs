//! yamux without the pings by which it measures round trips: each side sends one whenever something goes over a connection that has
//! been still for ten seconds, so that a question of [`super::liveness`] and its answer would become six frames. What it would
//! measure is how far windows may grow, and no message here fills one.
//!
//! A ping that is never sent is never answered, and no other follows. Those of the other end are answered as always.
//!
//! ```text
//! version u8 | type u8 | flags u16 | stream u32 | length u32        a frame's header; a body only where the type is 0
//! ```
//! (yamux's specification, version 0.)
//!
//! What it is not: another protocol on the wire.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    yamux,
};

const HEADER_LEN: usize = 12;
const DATA: u8 = 0;
const PING: u8 = 2;
/// In the low byte of the flags: it asks, and does not answer.
const SYN: u8 = 1;

/// The upgrade.
#[derive(Clone)]
pub(super) struct QuietYamux(pub(super) yamux::Config);

impl UpgradeInfo for QuietYamux {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for QuietYamux {
    type Output = yamux::Muxer<WithoutPings<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<WithoutPings<C>>>::Future;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(WithoutPings::new(io), info)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for QuietYamux {
    type Output = yamux::Muxer<WithoutPings<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<WithoutPings<C>>>::Future;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(WithoutPings::new(io), info)
    }
}

/// What yamux writes on: pings that ask get no further.
pub(super) struct WithoutPings<C> {
    inner: C,
    /// The next header, until it is complete.
    header: Vec<u8>,
    /// Bytes of a header that goes out before anything else.
    waiting: Vec<u8>,
    /// Bytes of a body that are still to come.
    body: usize,
}

impl<C> WithoutPings<C> {
    fn new(inner: C) -> Self {
        Self { inner, header: Vec::new(), waiting: Vec::new(), body: 0 }
    }

    /// Takes bytes of a header.
    fn take_header(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(HEADER_LEN - self.header.len());
        self.header.extend_from_slice(&bytes[..taken]);
        if let [_, kind, _, flags, _, _, _, _, length @ ..] = &self.header[..]
            && let Ok(length) = <[u8; 4]>::try_from(length)
        {
            let is_question = *kind == PING && flags & SYN != 0;
            self.body = if *kind == DATA { u32::from_be_bytes(length) as usize } else { 0 };
            let header = std::mem::take(&mut self.header);
            self.waiting = if is_question { Vec::new() } else { header };
        }
        taken
    }
}

impl<C: AsyncWrite + Unpin> WithoutPings<C> {
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for WithoutPings<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for WithoutPings<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_waiting(cx))?;
        if self.body == 0 {
            return Poll::Ready(Ok(self.take_header(buf)));
        }
        let most = buf.len().min(self.body);
        let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, &buf[..most]))?;
        self.body -= sent;
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncWriteExt, executor::block_on};
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let body = if kind == DATA { vec![7; length as usize] } else { Vec::new() };
        [&[0, kind, 0, flags, 0, 0, 0, 1][..], &length.to_be_bytes(), &body].concat()
    }

    proptest! {
        #[test]
        fn questions_are_left_out_and_all_else_goes_out_however_it_is_written(piece in 1_usize..40) {
            let (question, answer) = (frame(PING, SYN, 9), frame(PING, 2, 9));
            let others = [frame(DATA, SYN, 50), frame(1, 0, 262_144), answer, frame(DATA, 0, 0), frame(DATA, 0, 3)];
            let written = [&question[..], &others.join(&question[..]), &question].concat();

            let mut io = WithoutPings::new(Vec::new());
            for piece in written.chunks(piece) {
                block_on(io.write_all(piece)).unwrap();
            }
            block_on(io.flush()).unwrap();

            prop_assert_eq!(io.inner, others.concat());
        }
    }
}
