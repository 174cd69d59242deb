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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_purpose_has_the_median_of_all_nodes() {
        let told = [1024, 2048, 9216].map(|bytes| json!({ "ping": { "in_bytes": bytes, "out_bytes": bytes }, "stun": { "in_bytes": 0, "out_bytes": 0 } }));
        let figures = by_purpose(&told);
        assert_eq!(figures.len(), 1, "{figures:?}");
        assert_eq!((figures[0].name.as_str(), figures[0].value), ("bytes in and out for ping, median of 3", 4.0));
        assert!(by_purpose(&[Value::Null]).is_empty());
    }
}
