//! What a scenario is made of, in a few words for results.

use std::{net::IpAddr, time::Duration};

use super::{
    model::{Between, Link, Node, Scenario, Site},
    outcome,
    presets::PRESETS,
};
use crate::network::core::Way;

pub(super) fn site(site: &Site, outer: &[IpAddr]) -> outcome::Site {
    let words = PRESETS.iter().find(|(name, _)| *name == site.preset).map(|(_, words)| *words).unwrap_or_default();
    outcome::Site {
        name: site.name.clone(),
        preset: site.preset.to_owned(),
        words: words.to_owned(),
        routers: site.properties.routers(),
        addresses: outer.iter().map(IpAddr::to_string).collect(),
    }
}

pub(super) fn node(node: &Node, scenario: &Scenario, addresses: &[IpAddr]) -> outcome::Node {
    outcome::Node {
        name: node.name.clone(),
        site: scenario.sites[node.site.0].name.clone(),
        addresses: addresses.iter().map(IpAddr::to_string).collect(),
    }
}

pub(super) fn link(link: &Link, scenario: &Scenario) -> outcome::Link {
    let name = |site: super::model::SiteId| scenario.sites[site.0].name.clone();
    let between = match link.between {
        Between::Any => None,
        Between::Of(site) => Some((name(site), "everybody".to_owned())),
        Between::Two(a, b) => Some((name(a), name(b))),
    };
    outcome::Link { between, words: way(&link.way) }
}

fn way(way: &Way) -> String {
    let ms = |duration: Duration| format!("{} ms", duration.as_secs_f64() * 1000.0);
    let percent = |part: f64| format!("{} %", part * 100.0);
    let mut words = vec![ms(way.delay)];
    if !way.jitter.is_zero() {
        words.push(format!("up to {} more", ms(way.jitter)));
    }
    match way.burst {
        _ if way.loss <= 0.0 => {}
        Some(burst) => words.push(format!("{} lost in bursts of {burst}", percent(way.loss))),
        None => words.push(format!("{} lost", percent(way.loss))),
    }
    if way.reorder > 0.0 {
        words.push(format!("{} overtaken", percent(way.reorder)));
    }
    if let Some(rate) = way.rate {
        let mbit = rate.bytes_per_second as f64 * 8.0 / 1e6;
        words.push(format!("{mbit} Mbit/s with a queue of {}", ms(rate.queue)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::core::Rate;

    #[test]
    fn a_way_is_told_by_what_it_does() {
        let plain = Way::taking(Duration::from_millis(20));
        assert_eq!(way(&plain), "20 ms");
        let rough = Way {
            loss: 0.03,
            burst: Some(5.0),
            reorder: 0.2,
            jitter: Duration::from_millis(4),
            rate: Some(Rate { bytes_per_second: 250_000, queue: Duration::from_millis(100) }),
            ..plain
        };
        let words = "20 ms, up to 4 ms more, 3 % lost in bursts of 5, 20 % overtaken, 2 Mbit/s with a queue of 100 ms";
        assert_eq!(way(&rough), words);
    }
}
