//! Whatever stands in a file, it is read or refused.

use proptest::prelude::*;

use super::{WHOLE, read};

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = read(&text).map_err(|refused| refused.to_string());
    }

    /// Words of the language in any order get further than any text.
    #[test]
    fn any_toml_is_read_or_refused(lines in prop::collection::vec(line(), 0..40)) {
        let _ = read(&lines.join("\n")).map_err(|refused| refused.to_string());
    }

    /// A part of what holds together is taken out, or something else put in its place.
    #[test]
    fn what_is_changed_is_read_or_refused(from in 0..WHOLE.len(), len in 0..60_usize, new in "[ -~{}\"\n]{0,12}") {
        let end = (from + len).min(WHOLE.len());
        let text = format!("{}{new}{}", &WHOLE[..from], &WHOLE[end..]);
        let _ = read(&text).map_err(|refused| refused.to_string());
    }
}

fn line() -> impl Strategy<Value = String> {
    let tables = ["site", "node", "link", "step", "expect", "content", "case"];
    let keys = [
        "name", "site", "preset", "count", "run", "wait-for", "after", "between", "loss", "burst", "kill", "set",
        "capture", "exit", "keyferry", "pause", "include", "event", "template", "cut", "stall", "traffic", "disk",
        "network", "matrix",
    ];
    let values = [
        "\"a\"",
        "1",
        "\"home\"",
        "\"1s\"",
        "[\"a\", \"b\"]",
        "{ process = \"a\" }",
        "{ on = \"a\", keyferry = [\"get\"] }",
        "{ x = { at-least = 1 } }",
        "0.5",
        "-1",
        "true",
        "[]",
        "{}",
        "[[[]]]",
        "\"{a}\"",
        "\"{\"",
        "9223372036854775807",
        "{ site = \"a\", mtu = 600 }",
        "\"-1s\"",
        "\"test.toml\"",
        "1979-05-27",
    ];
    prop_oneof![
        prop::sample::select(tables.to_vec()).prop_map(|table| format!("[[{table}]]")),
        (prop::sample::select(keys.to_vec()), prop::sample::select(values.to_vec()))
            .prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}
