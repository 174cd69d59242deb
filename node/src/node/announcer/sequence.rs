//! The sequence numbers of this node's offers: each is greater than all before it, over restarts and whatever the clock does.
//!
//! ```text
//! sequence   in the data folder: the last number that was given out, in decimal digits
//! ```
//! A number is on the disk before an offer carries it. Where the file is lost, the clock alone says what comes next.

use std::path::{Path, PathBuf};

use keyferry_proto::offer::MAX_SEQUENCE;

use crate::{base::atomic_file::write_atomically, connect::connector::OwnNumbers};

const FILE: &str = "sequence";
const MODE: u32 = 0o600;

/// What the next number must be greater than.
#[derive(Debug)]
pub(in super::super) struct Sequence {
    path: PathBuf,
    last: u64,
    numbers: OwnNumbers,
}

impl Sequence {
    /// Takes up the numbers where they ended in this data folder.
    pub(in super::super) fn open(home: &Path) -> Self {
        let path = home.join(FILE);
        let read = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let last = read.filter(|last| *last < MAX_SEQUENCE).unwrap_or(0);
        Self { path, last, numbers: OwnNumbers::after(last) }
    }

    /// The numbers of this data folder, as they are given out.
    pub(in super::super) fn numbers(&self) -> OwnNumbers {
        self.numbers.clone()
    }

    /// The next number: the clock, in milliseconds, where it has gone on since the last one.
    pub(super) async fn next(&mut self, clock_ms: u64) -> u64 {
        self.last = clock_ms.max(self.last + 1).min(MAX_SEQUENCE);
        let (path, text) = (self.path.clone(), format!("{}\n", self.last));
        let written = tokio::task::spawn_blocking(move || write_atomically(&path, text.as_bytes(), MODE)).await;
        if let Err(error) = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            tracing::warn!(%error, "the sequence number of the offer cannot be kept");
        }
        self.numbers.give(self.last);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use keyferry_net::time::UnixTime;
    use keyferry_proto::{
        identity::NodeSecret,
        offer::{Offer, SignedOffer, seal, supersedes},
    };

    use super::*;

    #[tokio::test]
    async fn numbers_follow_the_clock_and_grow_where_it_does_not() {
        let home = tempfile::tempdir().unwrap();
        let mut sequence = Sequence::open(home.path());
        for (clock, expected) in [(1_000, 1_000), (1_000, 1_001), (10, 1_002), (2_000, 2_000)] {
            assert_eq!(sequence.next(clock).await, expected);
        }
    }

    #[tokio::test]
    async fn the_records_of_a_day_grow_over_restarts_with_a_clock_that_stands_still() {
        let home = tempfile::tempdir().unwrap();
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let now = UnixTime(1_800_000_000);
        let record = async || {
            let sequence = Sequence::open(home.path()).next(now.0 * 1000).await;
            let offer = Offer { candidates: vec![], signalling: vec![], sequence, expires: now };
            seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, now.day(), [0; 24]).unwrap()
        };
        let records = [record().await, record().await, record().await];
        assert!(records.windows(2).all(|two| supersedes(&two[1], &two[0])));
    }

    #[tokio::test]
    async fn a_file_that_holds_no_number_that_can_be_one_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        for text in ["", "nonsense", "18446744073709551615"] {
            std::fs::write(home.path().join(FILE), text).unwrap();
            assert_eq!(Sequence::open(home.path()).next(7).await, 7);
            assert_eq!(Sequence::open(home.path()).next(7).await, 8);
        }
    }
}
