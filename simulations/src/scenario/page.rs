//! One self-contained page: style, scripts and data in one file that asks for nothing else.
//!
//! What it is not: what it tells (`report`, `compare`).

use serde_json::Value;

/// What a page is about; each has its own script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One run.
    Report,
    /// Two of them.
    Comparison,
}

const FRAME: &str = include_str!("page/frame.html");
const STYLE: &str = include_str!("page/style.css");
const ELEMENTS: &str = include_str!("page/elements.js");
const REPORT: [&str; 5] = [
    include_str!("page/tables.js"),
    include_str!("page/topology.js"),
    include_str!("page/timeline.js"),
    include_str!("page/events.js"),
    include_str!("page/report.js"),
];
const COMPARISON: [&str; 1] = [include_str!("page/compare.js")];

/// The page with this data. Texts in it may be anybody's: none of them can end the element that it is in, and scripts
/// write text only.
pub(crate) fn document(kind: Kind, data: &Value) -> String {
    let scripts: &[&str] = match kind {
        Kind::Report => &REPORT,
        Kind::Comparison => &COMPARISON,
    };
    let script = format!("\"use strict\";\n{ELEMENTS}{}", scripts.concat());
    let data = data.to_string().replace('<', "\\u003c");
    FRAME.split("@@").fold(String::new(), |page, part| match part {
        "STYLE" => page + STYLE,
        "DATA" => page + &data,
        "SCRIPT" => page + &script,
        part => page + part,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_asks_for_nothing_else() {
        for kind in [Kind::Report, Kind::Comparison] {
            let page = document(kind, &json!({}));
            for elsewhere in ["http:", "https:", "src=", "href=", "@import", "url(\"", "fetch(", "innerHTML", "@@"] {
                assert!(!page.contains(elsewhere), "{kind:?}: {elsewhere}");
            }
            assert!(
                page.contains(
                    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
                )
            );
        }
    }

    #[test]
    fn every_left_angle_bracket_of_the_data_is_escaped() {
        let page = document(Kind::Report, &json!(["<b>", "@@SCRIPT@@"]));
        assert!(page.contains(r#">["\u003cb>","@@SCRIPT@@"]</script>"#));
    }
}
