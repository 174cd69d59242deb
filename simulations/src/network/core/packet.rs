//! What a router does to an IP packet: it counts its hops down, and answers when none is left.
//!
//! ```text
//! IPv4 (RFC 791)   byte 0 version|IHL   2..4 total length   6..8 flags|fragment offset   8 TTL   9 protocol   10..12 checksum   12..16 from   16..20 to
//! IPv6 (RFC 8200)  byte 0 version   4..6 payload length   6 next header   7 hop limit   8..24 from   24..40 to
//! ICMP (RFC 792)   type 11 Time Exceeded, 3 Destination Unreachable; code; checksum; 4 bytes of zero; the packet that was too late
//! ICMPv6 (RFC 4443) type 3 Time Exceeded, 1 Destination Unreachable; the same form
//! ```
//!
//! What it is not: a device or a queue; nothing here waits or is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How much of a packet an ICMP error quotes at most: all stays below the smallest MTU of IPv4 that hosts must take (RFC 1812 §4.3.2.3).
const QUOTED_V4: usize = 576 - 28;

/// The same for IPv6 (RFC 4443 §2.4 (c)).
const QUOTED_V6: usize = 1280 - 48;

/// The hop limit of what a router itself sends.
const OWN_TTL: u8 = 64;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// The addresses of one router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Router {
    /// What it answers IPv4 from.
    pub(crate) v4: Ipv4Addr,
    /// What it answers IPv6 from.
    pub(crate) v6: Ipv6Addr,
}

/// What came of a packet that was sent through routers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// It has passed them all; its hop count is written.
    Passed,
    /// Its hops ran out at a router, which answers with this packet, or not at all.
    Expired {
        /// Which router, from 0.
        at: usize,
        /// What goes back to the sender.
        answer: Option<Vec<u8>>,
    },
}

/// The sender and the destination of a whole IP packet; none if it is not one.
pub(crate) fn endpoints(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some((v4_at(packet, 12).into(), v4_at(packet, 16).into())),
        6 if packet.len() >= 40 => Some((v6_at(packet, 8).into(), v6_at(packet, 24).into())),
        _ => None,
    }
}

/// Sends a packet through routers. It must be one that [`endpoints`] understands.
pub(crate) fn cross(packet: &mut [u8], routers: &[Router]) -> Crossing {
    let ttl_at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    let ttl = usize::from(packet[ttl_at]);
    // The first router sees the packet as it was sent; one that sees a 1 may not pass it on (RFC 1812 §5.3.1).
    if ttl > routers.len() {
        set_ttl(packet, (ttl - routers.len()) as u8);
        return Crossing::Passed;
    }
    let at = ttl.saturating_sub(1);
    set_ttl(packet, ttl.min(1) as u8);
    Crossing::Expired { at, answer: error(packet, routers[at], Complaint::TimeExceeded) }
}

/// What the router says that knows no way to the destination; none where it has to be silent.
pub(crate) fn unreachable(packet: &[u8], router: Router) -> Option<Vec<u8>> {
    error(packet, router, Complaint::NoRoute)
}

#[derive(Debug, Clone, Copy)]
enum Complaint {
    TimeExceeded,
    NoRoute,
}

fn error(packet: &[u8], router: Router, complaint: Complaint) -> Option<Vec<u8>> {
    let (from, to) = endpoints(packet)?;
    // RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e): no answer to an error, to many at once, or to nobody in particular.
    if from.is_unspecified() || from.is_multicast() || to.is_multicast() || is_icmp_error(packet) {
        return None;
    }
    Some(match from {
        IpAddr::V4(from) => error_v4(packet, router.v4, from, complaint),
        IpAddr::V6(from) => error_v6(packet, router.v6, from, complaint),
    })
}

fn error_v4(packet: &[u8], router: Ipv4Addr, to: Ipv4Addr, complaint: Complaint) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(QUOTED_V4)];
    let kind = match complaint {
        Complaint::TimeExceeded => 11,
        Complaint::NoRoute => 3,
    };
    let len = 28 + quoted.len();
    let mut answer = Vec::with_capacity(len);
    answer.extend([0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, OWN_TTL, ICMP, 0, 0]);
    answer.extend(router.octets());
    answer.extend(to.octets());
    answer.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    answer.extend(quoted);
    let header = checksum(&answer[..20], 0);
    answer[10..12].copy_from_slice(&header.to_be_bytes());
    let body = checksum(&answer[20..], 0);
    answer[22..24].copy_from_slice(&body.to_be_bytes());
    answer
}

fn error_v6(packet: &[u8], router: Ipv6Addr, to: Ipv6Addr, complaint: Complaint) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(QUOTED_V6)];
    let kind = match complaint {
        Complaint::TimeExceeded => 3,
        Complaint::NoRoute => 1,
    };
    let len = 8 + quoted.len();
    let mut answer = Vec::with_capacity(40 + len);
    answer.extend([0x60, 0, 0, 0, (len >> 8) as u8, len as u8, ICMP_V6, OWN_TTL]);
    answer.extend(router.octets());
    answer.extend(to.octets());
    answer.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    answer.extend(quoted);
    // The pseudo-header (RFC 8200 §8.1): both addresses, the length and the next header.
    let pseudo = sum(&answer[8..40]) + len as u64 + u64::from(ICMP_V6);
    let body = checksum(&answer[40..], pseudo);
    answer[42..44].copy_from_slice(&body.to_be_bytes());
    answer
}

fn is_icmp_error(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 0x0f) * 4;
        let later_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0;
        let kind = packet.get(header).copied().unwrap_or(3);
        later_fragment || packet[9] == ICMP && matches!(kind, 3 | 4 | 5 | 11 | 12)
    } else {
        packet[6] == ICMP_V6 && packet.get(40).is_none_or(|kind| *kind < 128)
    }
}

fn set_ttl(packet: &mut [u8], ttl: u8) {
    if packet[0] >> 4 == 6 {
        packet[7] = ttl;
        return;
    }
    packet[8] = ttl;
    packet[10..12].fill(0);
    let header = (usize::from(packet[0] & 0x0f) * 4).clamp(20, packet.len());
    let sum = checksum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of `bytes`, with `start` added.
fn checksum(bytes: &[u8], start: u64) -> u16 {
    let mut total = start + sum(bytes);
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + last
}

fn v4_at(packet: &[u8], at: usize) -> Ipv4Addr {
    let mut octets = [0; 4];
    octets.copy_from_slice(&packet[at..at + 4]);
    octets.into()
}

fn v6_at(packet: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&packet[at..at + 16]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const TO: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

    fn routers() -> Vec<Router> {
        let router = |n: u8| Router {
            v4: Ipv4Addr::new(192, 0, 2, n),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)),
        };
        (1..=3).map(router).collect()
    }

    fn v4(ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 7, 0x40, 0, ttl, protocol, 0, 0];
        packet.extend(FROM.octets());
        packet.extend(TO.octets());
        packet.extend(payload);
        set_ttl(&mut packet, ttl);
        packet
    }

    fn v6(hops: u8, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, hops];
        packet.extend("2001:db8:a::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8:b::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn a_packet_with_hops_to_spare_passes_with_a_valid_header() {
        let mut packet = v4(4, 6, &[1; 20]);
        assert_eq!(cross(&mut packet, &routers()), Crossing::Passed);
        assert_eq!(packet[8], 1);
        assert_eq!(checksum(&packet[..20], 0), 0);
        let mut packet = v6(64, 6, &[1; 20]);
        assert_eq!(cross(&mut packet, &routers()), Crossing::Passed);
        assert_eq!(packet[7], 61);
    }

    #[test]
    fn each_router_answers_for_its_own_hop() {
        for ttl in 1..=3_u8 {
            let mut packet = v4(ttl, 6, &[9; 20]);
            let Crossing::Expired { at, answer: Some(answer) } = cross(&mut packet, &routers()) else {
                panic!("passed with {ttl}");
            };
            assert_eq!(at, usize::from(ttl) - 1);
            let router = IpAddr::V4(Ipv4Addr::new(192, 0, 2, ttl));
            assert_eq!(endpoints(&answer), Some((router, FROM.into())));
            assert_eq!((answer[9], answer[20], answer[21]), (ICMP, 11, 0));
            assert_eq!((checksum(&answer[..20], 0), checksum(&answer[20..], 0)), (0, 0));
            // A packet is quoted as the router got it.
            assert_eq!(answer[28 + 8], 1);
            assert_eq!(answer[28..], packet);
        }
    }

    #[test]
    fn time_exceeded_of_ipv6_has_a_valid_checksum() {
        let mut packet = v6(2, 6, &[9; 21]);
        let Crossing::Expired { at: 1, answer: Some(answer) } = cross(&mut packet, &routers()) else { panic!() };
        assert_eq!((answer[6], answer[40], answer[41]), (ICMP_V6, 3, 0));
        let pseudo = sum(&answer[8..40]) + (answer.len() - 40) as u64 + u64::from(ICMP_V6);
        assert_eq!(checksum(&answer[40..], pseudo), 0);
        assert_eq!(answer[48 + 7], 1);
    }

    #[test]
    fn errors_are_not_answered() {
        let mut packet = v4(1, ICMP, &[11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cross(&mut packet, &routers()), Crossing::Expired { at: 0, answer: None });
        let mut packet = v6(1, ICMP_V6, &[1, 0, 0, 0]);
        assert_eq!(cross(&mut packet, &routers()), Crossing::Expired { at: 0, answer: None });
        let mut echo = v4(1, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(cross(&mut echo, &routers()), Crossing::Expired { at: 0, answer: Some(_) }));
    }

    #[test]
    fn long_packets_are_quoted_in_part() {
        let mut packet = v4(1, 6, &[5; 200]);
        packet.resize(60_000, 0);
        let Crossing::Expired { answer: Some(answer), .. } = cross(&mut packet, &routers()) else { panic!() };
        assert_eq!(answer.len(), 576);
    }

    #[test]
    fn what_is_no_packet_has_no_endpoints() {
        for bytes in [&[][..], &[0x45; 19], &[0x60; 39], &[0x15; 60]] {
            assert_eq!(endpoints(bytes), None);
        }
    }

    #[test]
    fn a_missing_route_is_told() {
        let answer = unreachable(&v4(9, 6, &[0; 20]), routers()[0]).unwrap();
        assert_eq!((answer[20], answer[21]), (3, 0));
    }
}
