//! A stream whose bytes are counted, once its first bytes have said what it is for.
//!
//! ```text
//! <length> "/multistream/1.0.0\n"  <length> "/keyferry/kad/1\n"  <length> 08 <type> …
//! ```
//! The last part is the beginning of a Kademlia request (libp2p's `kad` specification, "RPC messages"): its field 1 is the type,
//! left out where that is 0.
//!
//! What it is not: the negotiation of protocols. A stream whose opener proposes several counts as the first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use keyferry_proto::{relaying, signalling};
use libp2p::{StreamProtocol, identify, ping, relay};

use crate::{
    base::traffic::{ByteCount, Traffic, TrafficPurpose},
    reach::rendezvous::scope::{LAN_PROTOCOL, WAN_PROTOCOL},
};

/// First bytes that are looked at: enough for each protocol that is spoken here.
const MAX_HEAD: usize = 96;
/// What the protocols of AutoNAT begin with; libp2p keeps their names to itself.
const AUTONAT_FAMILY: &str = "/libp2p/autonat/";
/// The other protocols, each of which has one purpose.
const SPOKEN: [(StreamProtocol, TrafficPurpose); 7] = [
    (identify::PROTOCOL_NAME, TrafficPurpose::Identify),
    (identify::PUSH_PROTOCOL_NAME, TrafficPurpose::IdentifyPush),
    (ping::PROTOCOL_NAME, TrafficPurpose::Ping),
    (relay::HOP_PROTOCOL_NAME, TrafficPurpose::Circuit),
    (relay::STOP_PROTOCOL_NAME, TrafficPurpose::Circuit),
    (StreamProtocol::new(signalling::PROTOCOL), TrafficPurpose::Call),
    (StreamProtocol::new(relaying::PROTOCOL), TrafficPurpose::Credentials),
];

/// The stream.
pub(super) struct MeteredStream<S> {
    inner: S,
    meter: StreamMeter,
}

impl<S> MeteredStream<S> {
    pub(super) fn opened_here(inner: S, traffic: Traffic) -> Self {
        Self { inner, meter: StreamMeter::new(true, traffic) }
    }

    pub(super) fn opened_there(inner: S, traffic: Traffic) -> Self {
        Self { inner, meter: StreamMeter::new(false, traffic) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let got = ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.meter.received(&buf[..got]);
        Poll::Ready(Ok(got))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.meter.sent(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Counts the bytes of one stream.
struct StreamMeter {
    traffic: Traffic,
    opened_here: bool,
    state: MeterState,
}

enum MeterState {
    /// The purpose is not known yet: the first bytes of the opener, and what was counted so far.
    Unknown {
        head: Vec<u8>,
        so_far: ByteCount,
    },
    Known(TrafficPurpose),
}

impl StreamMeter {
    fn new(opened_here: bool, traffic: Traffic) -> Self {
        Self { traffic, opened_here, state: MeterState::Unknown { head: Vec::new(), so_far: ByteCount::default() } }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.count(ByteCount::received(bytes.len()), if self.opened_here { &[] } else { bytes });
    }

    fn sent(&mut self, bytes: &[u8]) {
        self.count(ByteCount::sent(bytes.len()), if self.opened_here { bytes } else { &[] });
    }

    fn count(&mut self, count: ByteCount, of_opener: &[u8]) {
        let (head, so_far) = match &mut self.state {
            MeterState::Known(purpose) => return self.traffic.count(*purpose, count),
            MeterState::Unknown { head, so_far } => (head, so_far),
        };
        *so_far += count;
        let room = MAX_HEAD - head.len();
        head.extend_from_slice(&of_opener[..of_opener.len().min(room)]);
        if let Some(purpose) = purpose_of(head) {
            self.traffic.count(purpose, *so_far);
            self.state = MeterState::Known(purpose);
        }
    }
}

impl Drop for StreamMeter {
    fn drop(&mut self) {
        if let MeterState::Unknown { so_far, .. } = self.state {
            self.traffic.count(TrafficPurpose::OtherStream, so_far);
        }
    }
}

/// What a stream is for, by its opener's first bytes; none if more of them are needed.
fn purpose_of(head: &[u8]) -> Option<TrafficPurpose> {
    let undecided = (head.len() >= MAX_HEAD).then_some(TrafficPurpose::OtherStream);
    let Some((_, after_header)) = line(head) else { return undecided };
    let Some((protocol, request)) = line(after_header) else { return undecided };
    if protocol != WAN_PROTOCOL.as_ref() && protocol != LAN_PROTOCOL.as_ref() {
        return Some(purpose_of_protocol(protocol));
    }
    let length = request.iter().position(|byte| byte & 0x80 == 0);
    match length.map(|last| &request[last + 1..]) {
        Some([0x08, kind, ..]) => Some(purpose_of_request(*kind)),
        None | Some([] | [0x08]) => undecided,
        Some(_) => Some(TrafficPurpose::PutRecord),
    }
}

/// The next line of multistream-select, without its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (line, rest) = rest.split_at_checked((*length).into())?;
    // What is no text is no protocol of this node.
    Some((std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\n'), rest))
}

fn purpose_of_protocol(protocol: &str) -> TrafficPurpose {
    match SPOKEN.iter().find(|(name, _)| name.as_ref() == protocol) {
        Some((_, purpose)) => *purpose,
        None if protocol.starts_with(AUTONAT_FAMILY) => TrafficPurpose::AutoNat,
        None => TrafficPurpose::OtherStream,
    }
}

fn purpose_of_request(kind: u8) -> TrafficPurpose {
    match kind {
        0 => TrafficPurpose::PutRecord,
        1 => TrafficPurpose::GetRecord,
        2 => TrafficPurpose::AddProvider,
        3 => TrafficPurpose::GetProviders,
        4 => TrafficPurpose::FindNode,
        _ => TrafficPurpose::OtherStream,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(protocol: &str, payload: &[u8]) -> Vec<u8> {
        let lines = ["/multistream/1.0.0\n", &format!("{protocol}\n")];
        let lines = lines.map(|line| [&[line.len() as u8], line.as_bytes()].concat());
        [&lines.concat(), payload].concat()
    }

    fn counted(opened_here: bool, pieces: &[&[u8]]) -> Vec<(&'static str, ByteCount)> {
        let traffic = Traffic::default();
        let mut meter = StreamMeter::new(opened_here, traffic.clone());
        for piece in pieces {
            if opened_here { meter.sent(piece) } else { meter.received(piece) }
        }
        drop(meter);
        traffic.by_name().collect()
    }

    #[test]
    fn a_stream_counts_for_the_protocol_that_its_opener_names() {
        let cases = [
            ("/ipfs/id/1.0.0", "identify"),
            ("/ipfs/id/push/1.0.0", "identify_push"),
            ("/ipfs/ping/1.0.0", "ping"),
            ("/libp2p/autonat/2/dial-request", "autonat"),
            ("/libp2p/circuit/relay/0.2.0/stop", "circuit"),
            (signalling::PROTOCOL, "call"),
            ("/of/a/peer's/own/choice", "other_stream"),
        ];
        for (protocol, name) in cases {
            let bytes = opened(protocol, &[0; 7]);
            assert_eq!(counted(true, &[&bytes]), [(name, ByteCount::sent(bytes.len()))]);
            assert_eq!(counted(false, &[&bytes]), [(name, ByteCount::received(bytes.len()))]);
        }
    }

    #[test]
    fn a_request_to_the_dht_counts_by_its_type_and_its_answer_with_it() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x22, 0x08, 0x04], "kad_find_node"),
            (&[0x80, 0x01, 0x08, 0x01], "kad_get_record"),
            (&[0x80, 0x01, 0x08, 0x02], "kad_add_provider"),
            (&[0x22, 0x08, 0x03], "kad_get_providers"),
            (&[0x22, 0x12, 0x20], "kad_put_record"),
            (&[0x22, 0x08, 0x09], "other_stream"),
        ];
        for (payload, name) in cases {
            let traffic = Traffic::default();
            let mut meter = StreamMeter::new(true, traffic.clone());
            let bytes = opened(LAN_PROTOCOL.as_ref(), payload);
            meter.sent(&bytes);
            meter.received(&[0; 1000]);
            let expected = ByteCount { sent: bytes.len() as u64, received: 1000 };
            assert_eq!(traffic.by_name().collect::<Vec<_>>(), [(name, expected)]);
        }
    }

    #[test]
    fn a_stream_that_names_nothing_is_counted_when_it_ends() {
        assert_eq!(counted(true, &[b"\x13/multi"]), [("other_stream", ByteCount::sent(7))]);
        assert_eq!(counted(false, &[&[0xff; 3000]]), [("other_stream", ByteCount::received(3000))]);
    }

    proptest! {
        #[test]
        fn however_the_first_bytes_come_the_purpose_is_the_same(piece in 1_usize..60) {
            let bytes = opened(WAN_PROTOCOL.as_ref(), &[0x22, 0x08, 0x04, 0x52, 0x20]);
            let pieces: Vec<_> = bytes.chunks(piece).collect();
            prop_assert_eq!(counted(false, &pieces), [("kad_find_node", ByteCount::received(bytes.len()))]);
        }

        #[test]
        fn any_bytes_are_decided_within_those_that_are_looked_at(bytes: [u8; MAX_HEAD]) {
            prop_assert!(purpose_of(&bytes).is_some());
        }
    }
}
