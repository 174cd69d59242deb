//! Whether an event is one that a scenario speaks of.

use std::fmt;

use serde_json::Value;

use super::model::{Condition, EventMatch, FieldPath, Test};

impl EventMatch {
    /// Whether an event has the name, and all conditions hold.
    pub(super) fn matches(&self, event: &Value) -> bool {
        let is_named = self.event.as_ref().is_none_or(|name| event["event"] == name.as_str());
        is_named && self.conditions.iter().all(|condition| condition.holds(event))
    }
}

impl Condition {
    fn holds(&self, event: &Value) -> bool {
        let value = self.field.of(event);
        match &self.test {
            Test::Exists(wanted) => value.is_some() == *wanted,
            Test::Is(wanted) => value.is_some_and(|value| is_same(value, wanted)),
            Test::AtLeast(least) => value.and_then(Value::as_f64).is_some_and(|value| value >= *least),
            Test::AtMost(most) => value.and_then(Value::as_f64).is_some_and(|value| value <= *most),
            Test::Contains(part) => value.is_some_and(|value| contains(value, part)),
        }
    }
}

impl FieldPath {
    /// The value there; none where a part is missing, or the value is null.
    pub(super) fn of<'a>(&self, event: &'a Value) -> Option<&'a Value> {
        let step = |value: &'a Value, part: &String| match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            other => other.get(part.as_str()),
        };
        self.0.iter().try_fold(event, step).filter(|value| !value.is_null())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Numbers are the same however they are written.
fn is_same(value: &Value, wanted: &Value) -> bool {
    match (value.as_f64(), wanted.as_f64()) {
        (Some(value), Some(wanted)) => value == wanted,
        _ => value == wanted,
    }
}

/// A text has it as a part, a list as an item.
fn contains(value: &Value, part: &str) -> bool {
    match value {
        Value::String(text) => text.contains(part),
        Value::Array(items) => items.iter().any(|item| item.as_str().is_some_and(|text| text.contains(part))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(path: &str) -> FieldPath {
        FieldPath(path.split('.').map(str::to_owned).collect())
    }

    fn told(conditions: &[(&str, Test)]) -> bool {
        let event =
            json!({ "event": "fetched", "size": 7, "from": [{ "path": "direct" }], "via": null, "why": "it broke" });
        let conditions = conditions.iter().map(|(path, test)| Condition { field: field(path), test: test.clone() });
        EventMatch { event: Some("fetched".to_owned()), conditions: conditions.collect() }.matches(&event)
    }

    #[test]
    fn conditions_look_into_an_event() {
        assert!(told(&[]));
        assert!(told(&[("size", Test::Is(json!(7.0))), ("from.0.path", Test::Is(json!("direct")))]));
        assert!(told(&[
            ("size", Test::AtLeast(7.0)),
            ("size", Test::AtMost(7.0)),
            ("why", Test::Contains("broke".into()))
        ]));
        for wrong in [
            ("size", Test::Is(json!(8))),
            ("size", Test::AtLeast(7.5)),
            ("size", Test::AtMost(6.0)),
            ("why", Test::AtLeast(0.0)),
            ("from.1.path", Test::Exists(true)),
            ("via", Test::Exists(true)),
            ("event", Test::Exists(false)),
            ("size", Test::Contains("7".into())),
        ] {
            assert!(!told(std::slice::from_ref(&wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn an_event_of_another_name_is_another_one() {
        let wanted = EventMatch { event: Some("shared".to_owned()), conditions: Vec::new() };
        assert!(!wanted.matches(&json!({ "event": "fetched" })));
        assert!(!wanted.matches(&json!("shared")));
        assert!(EventMatch { event: None, conditions: Vec::new() }.matches(&json!("anything")));
    }
}
