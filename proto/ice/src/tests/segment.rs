//! What travels in the virtual network: TCP segments, as far as NATs and hosts care.
//!
//! Sequence numbers are wide and never wrap: a SYN takes one, each byte one, a FIN one.

use std::net::SocketAddr;

/// The TTL of every segment but the first SYN of an opening.
pub(super) const FULL_TTL: u8 = 64;

/// The flags of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    Syn,
    SynAck,
    /// Data, acknowledgements, and the end of a stream.
    Ack,
    Rst,
}

/// One segment in its packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) flags: Flags,
    pub(super) seq: u64,
    pub(super) ack: u64,
    pub(super) data: Vec<u8>,
    pub(super) fin: bool,
    pub(super) ttl: u8,
}

impl Segment {
    pub(super) fn syn(from: SocketAddr, to: SocketAddr, seq: u64, ttl: u8) -> Self {
        Self { from, to, flags: Flags::Syn, seq, ack: 0, data: Vec::new(), fin: false, ttl }
    }

    /// The RST by which a host or router refuses this segment (RFC 9293 §3.10.7.1).
    pub(super) fn refusal(&self) -> Self {
        let taken = u64::from(matches!(self.flags, Flags::Syn | Flags::SynAck)) + self.data.len() as u64;
        Self {
            from: self.to,
            to: self.from,
            flags: Flags::Rst,
            seq: self.ack,
            ack: self.seq + taken,
            data: Vec::new(),
            fin: false,
            ttl: FULL_TTL,
        }
    }
}
