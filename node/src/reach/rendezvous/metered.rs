//! Counts the bytes of the rendezvous' connections by what they are for.
//!
//! A stream's purpose is in its first bytes: the name of the protocol that its opener proposes, and for Kademlia the type of the
//! request. A connection's handshake ends where its first encrypted bytes begin.
//!
//! What it is not: a part of any protocol. It reads what passes by, changes nothing, and takes no name of a peer's choice.

mod handshake;
mod stream;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use libp2p::core::{
    ConnectedPoint,
    muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
};

pub(super) use self::handshake::ConnectionMeter;
use self::stream::MeteredStream;
use crate::base::traffic::Traffic;

/// A connection whose streams are counted.
struct MeteredMuxer<M> {
    inner: M,
    traffic: Traffic,
}

/// Counts the streams of a connection, unless it is a circuit: that is itself in a stream, which is counted.
pub(super) fn metered<M>(inner: M, point: &ConnectedPoint, traffic: Traffic) -> StreamMuxerBox
where
    M: StreamMuxer + Send + Unpin + 'static,
    M::Substream: Send + Unpin + 'static,
    M::Error: Send + Sync + 'static,
{
    match point.is_relayed() {
        true => StreamMuxerBox::new(inner),
        false => StreamMuxerBox::new(MeteredMuxer { inner, traffic }),
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for MeteredMuxer<M>
where
    M::Substream: Unpin,
{
    type Substream = MeteredStream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(MeteredStream::opened_there(stream, self.traffic.clone())))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(MeteredStream::opened_here(stream, self.traffic.clone())))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
