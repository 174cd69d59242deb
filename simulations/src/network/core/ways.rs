//! Which way leads from which line to which: one for all, others for some, and none where it is cut.

use std::collections::{HashMap, HashSet};

use super::{line_id::LineId, way::Way};

/// The ways between all lines.
#[derive(Debug)]
pub(super) struct Ways {
    usual: Way,
    /// By two lines, the smaller first: a way is the same in both directions.
    own: HashMap<(LineId, LineId), Way>,
    cut: HashSet<(LineId, LineId)>,
}

impl Ways {
    pub(super) fn all(usual: Way) -> Self {
        Self { usual, own: HashMap::new(), cut: HashSet::new() }
    }

    /// The way between two lines; none if it is cut.
    pub(super) fn between(&self, a: LineId, b: LineId) -> Option<Way> {
        let two = ordered(a, b);
        if self.cut.contains(&two) {
            return None;
        }
        Some(self.own.get(&two).copied().unwrap_or(self.usual))
    }

    pub(super) fn set(&mut self, between: Option<(LineId, LineId)>, way: Way) {
        match between {
            Some((a, b)) => drop(self.own.insert(ordered(a, b), way)),
            None => self.usual = way,
        }
    }

    pub(super) fn cut(&mut self, a: LineId, b: LineId) {
        self.cut.insert(ordered(a, b));
    }

    pub(super) fn heal(&mut self, a: LineId, b: LineId) {
        self.cut.remove(&ordered(a, b));
    }

    /// Whether it is the way of all lines that have none of their own.
    pub(super) fn is_usual(&self, a: LineId, b: LineId) -> bool {
        !self.own.contains_key(&ordered(a, b))
    }

    pub(super) fn usual(&self) -> &Way {
        &self.usual
    }
}

fn ordered(a: LineId, b: LineId) -> (LineId, LineId) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_lines_have_their_own_way_in_both_directions_and_others_the_usual_one() {
        let (usual, own) = (Way::taking(Duration::from_millis(20)), Way::taking(Duration::from_millis(90)));
        let [a, b, c] = [LineId(1), LineId(2), LineId(3)];
        let mut ways = Ways::all(usual);
        ways.set(Some((b, a)), own);
        assert_eq!((ways.between(a, b), ways.between(b, a), ways.between(a, c)), (Some(own), Some(own), Some(usual)));
        assert!(!ways.is_usual(a, b) && ways.is_usual(a, c));
        ways.set(None, own);
        assert_eq!(ways.between(a, c), Some(own));
    }

    #[test]
    fn what_is_cut_is_back_as_it_was_once_healed() {
        let [a, b] = [LineId(1), LineId(2)];
        let mut ways = Ways::all(Way::taking(Duration::ZERO));
        ways.cut(b, a);
        assert_eq!(ways.between(a, b), None);
        ways.heal(a, b);
        assert!(ways.between(b, a).is_some());
    }
}
