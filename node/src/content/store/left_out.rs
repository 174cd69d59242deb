//! What of a folder is not part of its collection, and why.

use std::{io, path::PathBuf};

use keyferry_proto::collection::{LinkError, MAX_DEPTH};

/// How much of what was left out is listed; the rest is only counted.
pub const MAX_LEFT_OUT_LISTED: usize = 1000;

/// Why something in a folder is not part of its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeftOutReason {
    /// A device, socket or pipe.
    #[error("a device, socket or pipe")]
    SpecialFile,
    /// A symbolic link to somewhere else, or one that might lead there.
    #[error("a link that leads out of the folder")]
    LinkOut,
    /// A symbolic link that no system follows.
    #[error("a link that cannot be followed")]
    BadLink,
    /// The operating system does not let this user read it.
    #[error("it cannot be read: {}", why(*.0))]
    Unreadable(io::ErrorKind),
    /// It was there at first, and is gone.
    #[error("it is gone")]
    Vanished,
    /// It never stayed as it was while it was read.
    #[error("it changes all the time")]
    Unsteady,
    /// It lies in too many folders, one in the other.
    #[error("it lies in more than {} folders, one in the other", MAX_DEPTH - 1)]
    TooDeep,
    /// What a fetch has not finished.
    #[error("it is what a fetch has not finished")]
    PartOfFetch,
}

/// What was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// What and why, at most [`MAX_LEFT_OUT_LISTED`], in no particular order.
    pub listed: Vec<(PathBuf, LeftOutReason)>,
    /// How much in all.
    pub count: u64,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, path: PathBuf, why: LeftOutReason) {
        self.count += 1;
        if self.listed.len() < MAX_LEFT_OUT_LISTED {
            self.listed.push((path, why));
        }
    }
}

impl LeftOutReason {
    pub(super) fn of_link(error: LinkError) -> Self {
        match error {
            LinkError::Absolute | LinkError::Escapes => Self::LinkOut,
            LinkError::Empty | LinkError::TooLong { .. } | LinkError::Nul => Self::BadLink,
        }
    }
}

fn why(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        other => other.to_string(),
    }
}
