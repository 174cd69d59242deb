//! Links between sites: what each table says is laid over what is said of wider ones.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::names::{EVERYBODY, Names};
use crate::{
    network::core::{Rate, Way},
    scenario::{
        file::{
            form::{Fields, texts_of},
            keys,
            problem::Problems,
            source::At,
            tree::{Kind, Table, Value},
        },
        model::{Between, Link, SiteId},
    },
};

/// How many `[[link]]` there are at most.
pub(crate) const MAX_LINKS: usize = 256;
/// One way, unless a file says otherwise: a round trip takes 40 ms.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
/// How long a packet may wait for a slow line, unless a file says otherwise.
pub(crate) const QUEUE: Duration = Duration::from_millis(100);

const LATENCIES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(5);
const LOSSES: RangeInclusive<f64> = 0.0..=0.5;
const BURSTS: RangeInclusive<f64> = 1.0..=1000.0;
const REORDERS: RangeInclusive<f64> = 0.0..=1.0;
/// 8 kbit/s to 100 Gbit/s, in bytes a second.
const RATES: RangeInclusive<u64> = 1_000..=12_500_000_000;
const QUEUES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);

/// How many pairs of sites something may be said of by name.
const MAX_PAIRS: usize = 4_096;

/// The word for a line without a limit.
const UNLIMITED: &str = "unlimited";

/// What is said of a link; the rest comes from wider ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Said {
    latency: Option<Duration>,
    jitter: Option<Duration>,
    loss: Option<f64>,
    burst: Option<f64>,
    reorder: Option<f64>,
    /// Bytes a second; none where the line is said to have no limit.
    rate: Option<Option<u64>>,
    queue: Option<Duration>,
}

impl Said {
    fn read(fields: &Fields<'_>) -> Self {
        let rate = match fields.value("rate").and_then(Value::as_text) {
            Some(UNLIMITED) => Some(None),
            _ => fields.rate("rate", RATES).map(Some),
        };
        Self {
            latency: fields.duration("latency", LATENCIES),
            jitter: fields.duration("jitter", LATENCIES),
            loss: fields.number("loss", LOSSES),
            burst: fields.number("burst", BURSTS),
            reorder: fields.number("reorder", REORDERS),
            rate,
            queue: fields.duration("queue", QUEUES),
        }
    }

    /// This, and where it says nothing, that.
    fn over(self, wider: Self) -> Self {
        Self {
            latency: self.latency.or(wider.latency),
            jitter: self.jitter.or(wider.jitter),
            loss: self.loss.or(wider.loss),
            burst: self.burst.or(wider.burst),
            reorder: self.reorder.or(wider.reorder),
            rate: self.rate.or(wider.rate),
            queue: self.queue.or(wider.queue),
        }
    }

    fn way(self) -> Way {
        let loss = self.loss.unwrap_or_default();
        let queue = self.queue.unwrap_or(QUEUE);
        Way {
            delay: self.latency.unwrap_or(LATENCY),
            jitter: self.jitter.unwrap_or_default(),
            loss,
            // A burst of one packet is none; neither is one of nothing.
            burst: self.burst.filter(|burst| loss > 0.0 && *burst > 1.0),
            reorder: self.reorder.unwrap_or_default(),
            rate: self.rate.flatten().map(|bytes_per_second| Rate { bytes_per_second, queue }),
        }
    }

    fn check(self, whole: Self, fields: &Fields<'_>) {
        if self.burst.is_some_and(|burst| burst > 1.0) && whole.way().loss == 0.0 {
            fields.problems().add(
                fields.at_of("burst"),
                "`burst` needs a loss",
                "write loss = \"1 %\", or take it out",
            );
        }
        if self.queue.is_some() && whole.rate.is_none() {
            let advice = "write rate = \"20 Mbit/s\", or take it out";
            fields.problems().add(fields.at_of("queue"), "`queue` needs a rate", advice);
        }
    }
}

/// All links, as they are so far.
#[derive(Debug, Default)]
pub(crate) struct Links {
    said: Vec<(Between, Said)>,
}

pub(crate) fn read(tables: &[&Table], sites: &Names<SiteId>, problems: &Problems) -> Links {
    let mut links = Links::default();
    for table in tables {
        let fields = Fields::of(table, &keys::LINK, problems);
        let between = match fields.value("between") {
            None => vec![Between::Any],
            Some(value) => between(value, sites, problems),
        };
        links.add(&between, &fields);
    }
    links
}

impl Links {
    fn add(&mut self, between: &[Between], fields: &Fields<'_>) {
        let said = Said::read(fields);
        if self.said.len() + between.len() > MAX_PAIRS {
            let advice = format!("at most {MAX_PAIRS}; write \"everybody\" for one end");
            return fields.problems().add(fields.at_of("between"), "this is between too many pairs of sites", advice);
        }
        for between in between {
            let whole = said.over(self.of(*between));
            said.check(whole, fields);
            self.said.push((*between, said));
        }
    }

    /// Changes what a `set` says of one link, and gives it back as it is from then on.
    pub(crate) fn set(&mut self, at: Between, fields: &Fields<'_>) -> Link {
        self.add(&[at], fields);
        Link { between: at, way: self.of(at).way() }
    }

    /// What is said of a link by all that has been said of it and of wider ones, in the order of the file.
    fn of(&self, between: Between) -> Said {
        let covering = self.said.iter().filter(|(wider, _)| covers(*wider, between));
        covering.fold(Said::default(), |whole, (_, said)| said.over(whole))
    }

    /// One link for each place that something is said of, each whole; wider ones first, so that the last that fits is right.
    pub(crate) fn resolved(&self) -> Vec<Link> {
        let said: BTreeSet<Between> = self.said.iter().map(|(between, _)| *between).collect();
        let of_sites = said.iter().filter_map(|between| match between {
            Between::Of(site) => Some((*site, self.of(*between))),
            Between::Any | Between::Two(..) => None,
        });
        let of_sites: Vec<(SiteId, Said)> = of_sites.collect();
        // What is said of both ends is said of what is between them.
        let between_two = of_sites.iter().enumerate().flat_map(|(at, (a, of_a))| {
            let others = of_sites[at + 1..].iter().filter(move |(_, of_b)| of_a != of_b);
            others.map(move |(b, _)| Between::Two(*a, *b))
        });
        let places: BTreeSet<Between> = between_two.chain(said).chain([Between::Any]).collect();
        places.into_iter().map(|between| Link { between, way: self.of(between).way() }).collect()
    }
}

/// Whether what is said of one link is said of another, too.
fn covers(wider: Between, narrower: Between) -> bool {
    match (wider, narrower) {
        (Between::Any, _) => true,
        (Between::Of(site), Between::Of(other)) => site == other,
        (Between::Of(site), Between::Two(a, b)) => site == a || site == b,
        (Between::Two(..), Between::Two(..)) => wider == narrower,
        (Between::Of(_), Between::Any) | (Between::Two(..), Between::Any | Between::Of(_)) => false,
    }
}

/// What `["a", "b"]` stands for, either of which may be a group, and the second one everybody.
pub(crate) fn between(value: &Value, sites: &Names<SiteId>, problems: &Problems) -> Vec<Between> {
    let ends = texts_of(value, problems);
    let [(a, at_a), (b, at_b)] = ends.as_slice() else {
        if matches!(value.kind, Kind::List(_) | Kind::Text(_)) {
            problems.add(value.at, "a link has two ends", "write [\"SITE\", \"SITE\"] or [\"SITE\", \"everybody\"]");
        }
        return Vec::new();
    };
    match (*a == EVERYBODY, *b == EVERYBODY) {
        (true, true) => vec![Between::Any],
        (true, false) => sites.find(b, *at_b, problems).into_iter().map(Between::Of).collect(),
        (false, true) => sites.find(a, *at_a, problems).into_iter().map(Between::Of).collect(),
        (false, false) => pairs(sites.find(a, *at_a, problems), sites.find(b, *at_b, problems), value.at, problems),
    }
}

fn pairs(left: Vec<SiteId>, right: Vec<SiteId>, at: At, problems: &Problems) -> Vec<Between> {
    let mut found = Vec::new();
    for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
        let pair = Between::Two(a.min(b), a.max(b));
        if a != b && !found.contains(&pair) {
            found.push(pair);
        }
    }
    if found.is_empty() && !left.is_empty() && !right.is_empty() {
        problems.add(at, "a link has two different ends", "hosts of one site reach each other without a link");
    }
    found
}
