//! What serving files that nothing vouches for has brought to light: which of their groups are right, and which files are wrong.
//!
//! A file all of whose groups were proven under one stamp needs no further proof; one with a wrong group is refused at once
//! when it is asked for again.
//!
//! What it is not: kept over a restart, or needed: what is not known is found out again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use keyferry_proto::{hash::ContentHash, transfer::units::UnitRanges};

use crate::base::stamp::Stamp;

/// How many files are remembered; the one that was asked for the longest time ago goes first.
const MAX_DOUBTS: usize = 256;

/// The files in doubt. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceDoubts(Arc<Mutex<VecDeque<SourceDoubt>>>);

#[derive(Debug)]
struct SourceDoubt {
    hash: ContentHash,
    stamp: Stamp,
    finding: SourceFinding,
}

/// What is known of a file with a certain stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceFinding {
    /// These groups are those of the blob.
    Proven(UnitRanges),
    /// It does not have the blob.
    Wrong,
}

impl SourceDoubts {
    /// What is known of the file with this stamp as the source of this blob.
    pub(super) fn of(&self, hash: &ContentHash, stamp: &Stamp) -> SourceFinding {
        let doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = doubts.iter().find(|doubt| doubt.hash == *hash && doubt.stamp == *stamp);
        found.map_or(SourceFinding::Proven(UnitRanges::empty()), |doubt| doubt.finding.clone())
    }

    /// Notes groups that were proven.
    pub(super) fn add_proven(&self, hash: &ContentHash, stamp: &Stamp, groups: &UnitRanges) {
        self.change(hash, stamp, |finding| {
            if let SourceFinding::Proven(known) = finding {
                *known = known.union(groups);
            }
        });
    }

    /// Notes that the file does not have the blob.
    pub(super) fn add_wrong(&self, hash: &ContentHash, stamp: &Stamp) {
        self.change(hash, stamp, |finding| *finding = SourceFinding::Wrong);
    }

    /// Forgets what is known of the sources of a blob: they were hashed anew.
    pub(super) fn forget(&self, hash: &ContentHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|doubt| doubt.hash != *hash);
    }

    fn change(&self, hash: &ContentHash, stamp: &Stamp, change: impl FnOnce(&mut SourceFinding)) {
        let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = doubts.iter().position(|doubt| doubt.hash == *hash && doubt.stamp == *stamp);
        let known = at.and_then(|at| doubts.remove(at));
        let new = || SourceDoubt { hash: *hash, stamp: *stamp, finding: SourceFinding::Proven(UnitRanges::empty()) };
        let mut doubt = known.unwrap_or_else(new);
        change(&mut doubt.finding);
        if doubts.len() == MAX_DOUBTS {
            doubts.pop_front();
        }
        doubts.push_back(doubt);
    }
}
