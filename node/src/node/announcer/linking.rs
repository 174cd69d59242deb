//! What an observer of the whole DHT has of an evening: the records of many nodes for two days, and when each was put. Whatever it compares
//! them by, it pairs them no better than by chance.

use keyferry_proto::offer::SealedOffer;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const NODES: usize = 25;
/// More of them than by chance: one is to be expected.
const TOO_MANY: usize = 7;
const MIDNIGHT_SECS: u64 = 20_001 * 86_400;
const TODAY: UtcDay = UtcDay(20_000);

/// One record, as everybody sees it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at_ms: i128,
    sequence: i128,
    expires_secs: i128,
}

/// The records of a node for one day, in the order in which they were put.
type Series = Vec<Seen>;

fn seen(sealed: &SealedOffer, at_ms: u64) -> Seen {
    Seen { at_ms: at_ms.into(), sequence: sealed.sequence().into(), expires_secs: sealed.expires().0.into() }
}

/// What a node puts from its start, some time in the evening, until midnight: the records of today and of tomorrow.
fn evening(number: u64) -> [Series; 2] {
    let mut random = StdRng::seed_from_u64(number);
    let secret = NodeSecret::from_bytes(&random.random());
    let (mut schedule, begun) = (OfferSchedule::default(), Instant::now());
    let start = MIDNIGHT_SECS - random.random_range(7_900..10_000);
    let mut put = [Series::new(), Series::new()];
    for at_secs in start..MIDNIGHT_SECS {
        let (now, clock) = (begun + Duration::from_secs(at_secs - start), UnixTime(at_secs));
        schedule.update(now, &[clock], &Reachability::default(), || random.random());
        while let Some((day, _)) = schedule.next().filter(|(_, due)| *due <= now) {
            let at_ms = at_secs * 1000 + random.random_range(0..1000);
            let offer = offer(&Reachability::default(), at_ms, clock);
            let signed = SignedOffer::sign(offer, &secret).unwrap();
            let sealed = seal(&signed, &secret, day, random.random()).unwrap();
            put[usize::from(day != TODAY)].push(seen(&sealed, at_ms));
            schedule.done(now, day, true, random.random());
        }
    }
    put
}

/// How unlike two records are, in one respect.
type Difference = fn(&Seen, &Seen) -> i128;

const RESPECTS: [(&str, Difference); 5] = [
    ("sequence", |one, other| one.sequence - other.sequence),
    ("expiry", |one, other| one.expires_secs - other.expires_secs),
    ("sequence beside the time", |one, other| (one.sequence - one.at_ms) - (other.sequence - other.at_ms)),
    ("expiry beside the time", |one, other| {
        (one.expires_secs - one.at_ms / 1000) - (other.expires_secs - other.at_ms / 1000)
    }),
    ("time", |one, other| one.at_ms - other.at_ms),
];

/// How many series of today are paired with that of the same node when each is paired with the one that is most like it.
fn right_pairs(today: &[Series], tomorrow: &[Series], difference: Difference) -> usize {
    let unlike = |one: &Series, other: &Series| {
        let pairs = one.iter().flat_map(|a| other.iter().map(move |b| difference(a, b).unsigned_abs()));
        pairs.min().unwrap_or(u128::MAX)
    };
    let is_right = |(number, one): &(usize, &Series)| {
        let best = (0..tomorrow.len()).min_by_key(|other| unlike(one, &tomorrow[*other]));
        best == Some(*number)
    };
    today.iter().enumerate().filter(is_right).count()
}

#[test]
fn the_records_of_two_days_are_paired_by_nothing_that_everybody_sees() {
    let (today, tomorrow): (Vec<_>, Vec<_>) =
        (0..NODES as u64).map(evening).map(|[today, tomorrow]| (today, tomorrow)).unzip();
    assert!(today.iter().chain(&tomorrow).all(|series| !series.is_empty()), "each node has put both");

    for (respect, difference) in RESPECTS {
        let right = right_pairs(&today, &tomorrow, difference);
        println!("by {respect}: {right} of {NODES}");
        assert!(right < TOO_MANY, "by {respect}: {right} of {NODES}");
        assert!(
            right_pairs(&today, &today, difference) > NODES - TOO_MANY,
            "what is alike is found alike, by {respect}"
        );
    }
}
