//! The ways to a node that its newest offer names.
//!
//! What it is not: taking these ways, or the DHT that the offers come from.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    stream::{SelectAll, select_all},
};
use keyferry_ice::{CandidateKind, TcpType};
use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::{
    identity::NodeKey,
    offer::{MAX_CLOCK_SKEW, Offer, OfferError, SealedOffer, USUAL_LIFETIME, UnsealError, record_key, resolve_days},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use super::error::OfferTime;
use crate::{
    base::clock::{self, ClockSkew, days_of, possible_times},
    net::path::RelayMode,
    reach::rendezvous::Rendezvous,
};

/// Offers that may wait to be looked at.
const WAITING_OFFERS: usize = 4;

/// What one offer says of where its node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Addresses that accept connections, the best first.
    pub(crate) passive: Vec<SocketAddr>,
    /// Circuits at which the node can be called.
    pub(crate) circuits: Vec<Multiaddr>,
    /// The sequence number of the offer.
    pub(crate) sequence: u64,
    /// What is odd about the time that it holds for.
    pub(crate) off_time: Option<OfferTime>,
}

/// What a record of the node turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundOffer {
    /// An offer, newer than any before.
    Ways(Ways),
    /// An offer of a version that this program does not read.
    OtherVersion(u8),
}

/// What the node's offers say, as they come in, of whatever day. It leaves out those that are not the node's, or are older than one
/// before.
pub(crate) fn ways_to(rendezvous: &Rendezvous, node: NodeKey, relay_mode: RelayMode) -> mpsc::Receiver<FoundOffer> {
    let (sender, receiver) = mpsc::channel(WAITING_OFFERS);
    let mut status = rendezvous.status();
    let mut skew = status.borrow_and_update().clock;
    let mut search = OfferSearch::new(rendezvous, node);
    search.ask(skew);
    tokio::spawn(async move {
        let mut newest = Newest::default();
        loop {
            tokio::select! {
                record = search.records.next() => {
                    let Some(sealed) = record else { return };
                    if let Some(found) = newest.read(&sealed, &node, relay_mode, skew)
                        && sender.send(found).await.is_err()
                    {
                        return;
                    }
                }
                // The first peers tell what time it is a moment after the first lookups have begun.
                Ok(()) = status.changed() => {
                    skew = status.borrow_and_update().clock;
                    search.ask(skew);
                }
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// The lookups for the offers of a node, one for each day that it may be.
struct OfferSearch {
    rendezvous: Rendezvous,
    node: NodeKey,
    days: Vec<UtcDay>,
    records: SelectAll<DayRecords>,
}

/// What is found under the key of one day.
struct DayRecords(mpsc::Receiver<SealedOffer>);

impl OfferSearch {
    fn new(rendezvous: &Rendezvous, node: NodeKey) -> Self {
        Self { rendezvous: rendezvous.clone(), node, days: Vec::new(), records: select_all([]) }
    }

    /// Begins the lookups for the days that it may be, as far as they have not begun yet.
    fn ask(&mut self, skew: Option<ClockSkew>) {
        for day in days_of(&possible_times(clock::now(), skew), resolve_days) {
            if !self.days.contains(&day) {
                self.days.push(day);
                self.records.push(DayRecords(self.rendezvous.resolve(record_key(&self.node, day))));
            }
        }
    }
}

impl Stream for DayRecords {
    type Item = SealedOffer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SealedOffer>> {
        self.0.poll_recv(context)
    }
}

/// The sequence number of the newest offer that was read. It is the one inside: the number of a record says nothing about that
/// of another day.
#[derive(Debug, Default)]
struct Newest(Option<u64>);

impl Newest {
    fn read(
        &mut self,
        sealed: &SealedOffer,
        node: &NodeKey,
        relay_mode: RelayMode,
        skew: Option<ClockSkew>,
    ) -> Option<FoundOffer> {
        let now = clock::now();
        let opened = possible_times(now, skew).into_iter().map(|time| sealed.open(node, time));
        match opened.reduce(Result::or)? {
            Ok(signed) if self.0.is_some_and(|newest| signed.offer().sequence <= newest) => None,
            Ok(signed) => {
                self.0 = Some(signed.offer().sequence);
                let right = skew.filter(|skew| skew.is_too_much()).map_or(now, |skew| skew.by_others(now));
                let off_time = off_time(signed.offer().expires, right);
                Some(FoundOffer::Ways(Ways { off_time, ..ways_of(signed.offer(), relay_mode) }))
            }
            Err(UnsealError::Offer(OfferError::Version { got })) => Some(FoundOffer::OtherVersion(got)),
            Err(error) => {
                tracing::debug!(%error, "an offer does not open");
                None
            }
        }
    }
}

/// What the expiry of an offer says of the clock of the node that made it.
fn off_time(expires: UnixTime, now: UnixTime) -> Option<OfferTime> {
    let (ahead, expired) = (expires.since(now.plus(USUAL_LIFETIME)), now.since(expires));
    match (ahead, expired) {
        (ahead, _) if ahead > MAX_CLOCK_SKEW => Some(OfferTime::Ahead(ahead)),
        (_, expired) if expired > Duration::ZERO => Some(OfferTime::Expired(expired)),
        _ => None,
    }
}

/// What an offer says, without what this node may not use.
fn ways_of(offer: &Offer, relay_mode: RelayMode) -> Ways {
    let mut candidates = offer.candidates.clone();
    candidates.retain(|candidate| {
        candidate.tcp_type == TcpType::Passive
            && (relay_mode.allows_relays() || candidate.kind != CandidateKind::Relayed)
    });
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
    let passive = candidates.into_iter().map(|candidate| candidate.addr).collect();
    Ways { passive, circuits: offer.signalling.clone(), sequence: offer.sequence, off_time: None }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::Candidate;
    use keyferry_net::time::{UnixTime, UtcDay};
    use keyferry_proto::{
        identity::NodeSecret,
        offer::{SignedOffer, seal},
    };

    use super::*;

    #[test]
    fn of_the_offers_of_two_days_the_one_with_the_greater_sequence_inside_counts() {
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let (node, today) = (secret.public(), clock::now().day().0);
        let record = |day: u32, sequence, port: u16| {
            let addr = SocketAddr::from(([192, 0, 2, 7], port));
            let candidates = vec![Candidate::new(CandidateKind::Host, TcpType::Passive, addr, 1)];
            let expires = clock::now().plus(std::time::Duration::from_secs(3600));
            let offer = Offer { candidates, signalling: Vec::new(), sequence, expires };
            seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, UtcDay(day), rand::random()).unwrap()
        };
        // No matter which of the two days' records has the greater number outside.
        for (day, next) in (today..today + 10).map(|day| (day, day + 1)) {
            let mut newest = Newest::default();
            let mut port = |record| match newest.read(&record, &node, RelayMode::Both, None) {
                Some(FoundOffer::Ways(ways)) => Some(ways.passive[0].port()),
                _ => None,
            };
            assert_eq!(port(record(day, 5, 1)), Some(1));
            assert_eq!(port(record(next, 4, 2)), None);
            assert_eq!(port(record(next, 6, 3)), Some(3));
            assert_eq!(port(record(day, 5, 1)), None);
            assert_eq!(port(record(day, 7, 4)), Some(4));
        }
    }

    #[test]
    fn of_a_clock_that_was_ahead_and_is_set_right_the_later_offer_counts() {
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let (node, now) = (secret.public(), clock::now());
        // Numbers are kept: after the clock is set back they go on from where they were.
        let record = |clock: UnixTime, sequence| {
            let offer = Offer { candidates: vec![], signalling: vec![], sequence, expires: clock.plus(USUAL_LIFETIME) };
            seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, clock.day(), rand::random()).unwrap()
        };
        let ahead = now.plus(Duration::from_secs(20 * 3600));
        let (before, after) = (record(ahead, ahead.0 * 1000), record(now, ahead.0 * 1000 + 1));
        for order in [[&before, &after], [&after, &before]] {
            let mut newest = Newest::default();
            let read = order.map(|record| newest.read(record, &node, RelayMode::Both, None));
            let last = read.into_iter().flatten().last();
            let Some(FoundOffer::Ways(ways)) = last else { panic!("none opens") };
            assert_eq!((ways.sequence, ways.off_time), (ahead.0 * 1000 + 1, None));
        }
    }

    #[test]
    fn an_offer_by_a_wrong_clock_opens_and_tells_how_wrong_it_is_even_where_the_own_clock_is_wrong_the_other_way() {
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let (node, now, day) = (secret.public(), clock::now(), 24 * 3600);
        let read = |ahead_secs: i64, skew| {
            let clock = UnixTime(now.0.checked_add_signed(ahead_secs).unwrap());
            let offer =
                Offer { candidates: vec![], signalling: vec![], sequence: 1, expires: clock.plus(USUAL_LIFETIME) };
            let sealed = seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, now.day(), rand::random()).unwrap();
            match Newest::default().read(&sealed, &node, RelayMode::Both, skew) {
                Some(FoundOffer::Ways(ways)) => Some(ways.off_time),
                _ => None,
            }
        };
        let about = |said, secs: i64| match said {
            Some(Some(OfferTime::Ahead(by))) => by.as_secs().abs_diff(secs.unsigned_abs()) < 60,
            Some(Some(OfferTime::Expired(by))) => (by + USUAL_LIFETIME).as_secs().abs_diff(secs.unsigned_abs()) < 60,
            _ => false,
        };
        assert_eq!(read(0, None), Some(None));
        for secs in [7200, -7200, day, -day] {
            assert!(about(read(secs, None), secs), "{secs}");
        }
        // The own clock is two days behind that of the node, and a day behind the right time.
        let behind = Some(ClockSkew { ahead_secs: -day, hosts: 3 });
        assert_eq!(read(2 * day, None), None);
        assert!(about(read(2 * day, behind), day));
    }

    #[test]
    fn relayed_addresses_of_a_peer_are_not_dialled_by_a_node_that_uses_no_relays() {
        let passive = |kind, addr: &str| Candidate::new(kind, TcpType::Passive, addr.parse().unwrap(), 1);
        let offer = Offer {
            candidates: vec![
                passive(CandidateKind::Relayed, "203.0.113.1:50000"),
                passive(CandidateKind::Host, "192.0.2.7:4600"),
            ],
            signalling: Vec::new(),
            sequence: 1,
            expires: UnixTime(1),
        };
        let dialled = |mode| ways_of(&offer, mode).passive.iter().map(ToString::to_string).collect::<Vec<_>>();

        assert_eq!(dialled(RelayMode::Both), ["192.0.2.7:4600", "203.0.113.1:50000"]);
        assert_eq!(dialled(RelayMode::NoRelay), ["192.0.2.7:4600"]);
    }
}
