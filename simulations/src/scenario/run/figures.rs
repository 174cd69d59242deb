//! What nodes say of themselves, as figures of the run.

use std::collections::BTreeMap;

use serde_json::Value;

use super::journal::Journal;
use crate::{
    measure::median,
    scenario::{model::Scenario, outcome::Figure},
};

/// What the bytes of nodes were for, by those that told their status: of several, the median.
pub(super) fn of_traffic(scenario: &Scenario, journal: &Journal) -> Vec<Figure> {
    let told = scenario.processes.iter().filter_map(|process| journal.last_of(&process.name, "status"));
    by_purpose(&told.map(|status| status["traffic"].clone()).collect::<Vec<_>>())
}

fn by_purpose(each: &[Value]) -> Vec<Figure> {
    let mut by_purpose: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (purpose, bytes) in each.iter().filter_map(Value::as_object).flatten() {
        let number = |name: &str| bytes[name].as_f64().unwrap_or_default();
        by_purpose.entry(purpose).or_default().push(number("in_bytes") + number("out_bytes"));
    }
    let figure = |(purpose, bytes): (&str, Vec<f64>)| Figure {
        name: format!("bytes in and out for {purpose}, median of {}", bytes.len()),
        value: median(&bytes) / 1024.0,
        unit: "KiB".to_owned(),
    };
    by_purpose.into_iter().map(figure).filter(|figure| figure.value > 0.0).collect()
}

/// How often strangers tried what, a second and all together; by what their processes are called.
pub(super) fn of_strangers(scenario: &Scenario, journal: &Journal) -> Vec<Figure> {
    let told = scenario.processes.iter().filter_map(|process| {
        let (_, called) = process.name.split_once('.')?;
        Some((called, journal.last_of(&process.name, "tried")?))
    });
    rates(&told.collect::<Vec<_>>())
}

fn rates(told: &[(&str, Value)]) -> Vec<Figure> {
    let mut rates: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for (called, tried) in told {
        let seconds = tried["seconds"].as_f64().filter(|seconds| *seconds > 0.0).unwrap_or(1.0);
        for (what, count) in tried["tried"].as_object().into_iter().flatten() {
            *rates.entry((called, what)).or_default() += count.as_f64().unwrap_or_default() / seconds;
        }
    }
    let figure = |((called, what), value): ((&str, &str), f64)| Figure {
        name: format!("{called}: {} of strangers", what.replace('_', " ")),
        value,
        unit: "/s".to_owned(),
    };
    rates.into_iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_strangers_tried_is_added_up_by_what_they_are_called() {
        let tried = |bad: u64| json!({ "event": "tried", "seconds": 2.0, "tried": { "bad_hellos": bad } });
        let figures = rates(&[("beside", tried(4)), ("siege", tried(6)), ("siege", tried(10))]);
        let seen: Vec<_> = figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        assert_eq!(seen, [("beside: bad hellos of strangers", 2.0), ("siege: bad hellos of strangers", 8.0)]);
    }

    #[test]
    fn each_purpose_has_the_median_of_all_nodes() {
        let told = [1024, 2048, 9216].map(|bytes| json!({ "ping": { "in_bytes": bytes, "out_bytes": bytes }, "stun": { "in_bytes": 0, "out_bytes": 0 } }));
        let figures = by_purpose(&told);
        assert_eq!(figures.len(), 1, "{figures:?}");
        assert_eq!((figures[0].name.as_str(), figures[0].value), ("bytes in and out for ping, median of 3", 4.0));
        assert!(by_purpose(&[Value::Null]).is_empty());
    }
}
