//! What a path to a node looks like, and a relay on which one may lead.

use std::fmt::Write as _;

use keyferry::{PathInfo, control::TurnInfo};

use crate::text::{plural, safe};

/// A path of a session.
pub(super) fn path_text(path: &PathInfo) -> String {
    let node = path.node.as_deref().map_or_else(|| "somebody".to_owned(), safe);
    format!("{node} at {}, {}", path.remote, safe(&path.description))
}

/// A relay that this node may use.
pub(super) fn turn_text(relay: &TurnInfo) -> String {
    let mut text = safe(&relay.server);
    match (&relay.reason, relay.took_ms) {
        (Some(reason), _) => {
            let _ = write!(text, ": {}", safe(reason));
        }
        (None, Some(took)) => {
            let _ = write!(text, " gave an address after {took} ms");
        }
        (None, None) => text.push_str(" has not been asked yet"),
    }
    if relay.allocations > 0 {
        let _ = write!(text, "; {} now", plural(relay.allocations, "address", "addresses"));
    }
    if relay.found {
        text.push_str(" (found)");
    }
    text
}
