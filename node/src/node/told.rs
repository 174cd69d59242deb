//! The paths that a command has told of, so that it can tell again when more is known of one: why there is no direct path is
//! found out while a relay is in use.
//!
//! What it is not: the sessions that stand (`sessions`).

use std::sync::{Mutex, PoisonError};

use super::api::PathInfo;

/// The paths that were told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<PathInfo>>);

impl Told {
    /// Notes that a path is told.
    pub(super) fn note(&self, path: PathInfo) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.iter_mut().find(|known| is_same(known, &path)) {
            Some(known) => *known = path,
            None => told.push(path),
        }
    }

    /// Those of these paths that were told, and of which more is known now.
    pub(super) fn better_known(&self, now: Vec<PathInfo>) -> Vec<PathInfo> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = |path: &PathInfo| {
            path.why.is_some() && told.iter().any(|known| is_same(known, path) && known.why.is_none())
        };
        now.into_iter().filter(is_news).collect()
    }

    /// A path, with all that was told of it.
    pub(super) fn latest(&self, path: PathInfo) -> PathInfo {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().find(|known| is_same(known, &path) && known.why.is_some()).cloned().unwrap_or(path)
    }
}

fn is_same(one: &PathInfo, other: &PathInfo) -> bool {
    (&one.node, one.remote, one.relay) == (&other.node, other.remote, other.relay)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyferry_ice::FailureReason;
    use keyferry_proto::identity::NodeSecret;

    use super::*;
    use crate::net::path::{PathKind, PathReport, RelayReason, RelayWay, Scope};

    fn path(why: Option<RelayReason>) -> PathInfo {
        let by = "203.0.113.1".parse().unwrap();
        let report = PathReport {
            remote: "203.0.113.1:50000".parse().unwrap(),
            kind: PathKind::Relayed { by, how: RelayWay::ToTheirs, why },
            scope: Scope::Internet,
            took: Duration::from_millis(34),
        };
        PathInfo::new(&NodeSecret::from_bytes(&[1; 32]).public(), &report)
    }

    #[test]
    fn what_becomes_known_of_a_path_is_told_once_and_kept() {
        let told = Told::default();
        let (bare, explained) = (path(None), path(Some(FailureReason::BothMapByDestination.into())));

        assert!(told.better_known(vec![explained.clone()]).is_empty(), "nobody was told of it");
        told.note(bare.clone());
        assert!(told.better_known(vec![bare.clone()]).is_empty());
        let known = told.better_known(vec![explained.clone()]);
        assert_eq!(known, std::slice::from_ref(&explained));
        told.note(explained.clone());
        assert!(told.better_known(vec![explained.clone()]).is_empty());
        assert_eq!(told.latest(bare), explained);
    }
}
