//! How content is described, remembered for folders: their lists of files are large, and many peers may ask for the same one.
//!
//! What it is not: reading those lists.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    transfer::layout::Layout,
};

/// How long the description of a folder is kept after it was asked for, and of how many: each may have been read from 64 MiB.
const DESCRIBED_FOR: Duration = Duration::from_secs(60);
const MAX_DESCRIBED: usize = 4;

/// How content is described to whoever asks for it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) format: ContentFormat,
    pub(super) size: u64,
    pub(super) layout: Layout,
}

/// How folders are described, as long as somebody is sent one, and the last few for a while longer.
#[derive(Debug, Default)]
pub(super) struct DescribedFolders {
    in_use: HashMap<ContentHash, Weak<Described>>,
    recent: VecDeque<(Instant, ContentHash, Arc<Described>)>,
}

impl DescribedFolders {
    /// The description of a folder, if it is known still.
    pub(super) fn get(&mut self, root: &ContentHash, now: Instant) -> Option<Arc<Described>> {
        self.recent.retain(|(since, ..)| now.saturating_duration_since(*since) < DESCRIBED_FOR);
        let described = self.in_use.get(root)?.upgrade()?;
        self.keep(*root, &described, now);
        Some(described)
    }

    /// Keeps a description.
    pub(super) fn insert(&mut self, root: ContentHash, described: &Arc<Described>, now: Instant) {
        self.in_use.retain(|_, other| other.strong_count() > 0);
        self.in_use.insert(root, Arc::downgrade(described));
        self.keep(root, described, now);
    }

    fn keep(&mut self, root: ContentHash, described: &Arc<Described>, now: Instant) {
        self.recent.retain(|(_, other, _)| *other != root);
        self.recent.truncate(MAX_DESCRIBED - 1);
        self.recent.push_front((now, root, Arc::clone(described)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_folders_stay_described_for_a_minute_and_no_more_than_those() {
        let (mut folders, now) = (DescribedFolders::default(), Instant::now());
        let describe = |number: u8| {
            let root = ContentHash::of(&[number]);
            let layout = Layout::blob(root, 1).unwrap();
            (root, Arc::new(Described { format: ContentFormat::Collection, size: 1, layout }))
        };
        for number in 0..=4 {
            let (root, described) = describe(number);
            folders.insert(root, &described, now);
        }
        let is_described = |folders: &mut DescribedFolders, number, at| folders.get(&describe(number).0, at).is_some();
        assert!(!is_described(&mut folders, 0, now) && is_described(&mut folders, 1, now));
        assert!(is_described(&mut folders, 4, now + DESCRIBED_FOR / 2));
        assert!(!is_described(&mut folders, 1, now + DESCRIBED_FOR));
        assert!(is_described(&mut folders, 4, now + DESCRIBED_FOR));
    }
}
