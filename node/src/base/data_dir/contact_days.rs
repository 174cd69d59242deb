//! Of contacts whose clock shows another day than this machine's: how many days it is off, as their last dial has proven. It outlives
//! restarts, so that a clock that is wrong by more than a day, and was less so, still hides nobody.
//!
//! ```text
//! contact-days   in the data folder: a line for each, KEY DAYS, such as `12D3KooW… -1`
//! ```
//! What it is not: needed. Without it, days are taken that are one off.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keyferry_net::time::UtcDay;
use keyferry_proto::identity::NodeKey;

use crate::base::atomic_file::write_atomically;

const FILE: &str = "contact-days";
const MODE: u32 = 0o600;
/// Contacts that are remembered; one more takes the place of one that is doubted, or else finds none.
const MAX_CONTACTS: usize = 64;
/// The longest file that is read.
const MAX_FILE_LEN: u64 = 8192;
/// The most days that a clock is remembered to be off.
const MAX_DAYS: i32 = 400;

/// How many days one clock is ahead of another; below 0 if it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayShift(pub i32);

impl DayShift {
    /// How many days a day lies after today.
    pub fn between(today: UtcDay, day: UtcDay) -> Self {
        let days = (i64::from(day.0) - i64::from(today.0)).clamp(i32::MIN.into(), i32::MAX.into());
        Self(i32::try_from(days).unwrap_or(0))
    }

    /// The day that is so many days after today.
    pub fn from(self, today: UtcDay) -> UtcDay {
        UtcDay(today.0.saturating_add_signed(self.0))
    }
}

/// The days of the contacts of a data folder. Clones are of the same ones.
#[derive(Debug, Clone)]
pub struct ContactDays {
    path: Arc<PathBuf>,
    known: Arc<Mutex<HashMap<NodeKey, KnownShift>>>,
}

#[derive(Debug, Clone, Copy)]
struct KnownShift {
    shift: DayShift,
    /// Whether the last dial by it was in vain.
    is_doubted: bool,
}

impl ContactDays {
    /// Reads those of a data folder. What is no line of the file is left out.
    pub fn open(home: &Path) -> Self {
        let path = home.join(FILE);
        let is_short = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_FILE_LEN);
        let text = if is_short { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let known = text.lines().filter_map(read_line).take(MAX_CONTACTS);
        let known = known.map(|(node, shift)| (node, KnownShift { shift, is_doubted: false })).collect();
        Self { path: Arc::new(path), known: Arc::new(Mutex::new(known)) }
    }

    /// Notes what a contact has just proven of the day of its clock. Writes to the disk if that is new.
    pub async fn proved(&self, node: NodeKey, shift: DayShift) {
        if !self.note(node, shift) {
            return;
        }
        let days = self.clone();
        let written = tokio::task::spawn_blocking(move || days.write()).await;
        if let Err(error) = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            tracing::warn!(%error, "the day of a contact cannot be kept");
        }
    }

    /// False if nothing has changed that is on the disk.
    fn note(&self, node: NodeKey, shift: DayShift) -> bool {
        let mut known = self.lock();
        if shift == DayShift(0) || shift.0.abs() > MAX_DAYS {
            return known.remove(&node).is_some();
        }
        if known.len() >= MAX_CONTACTS && !known.contains_key(&node) {
            let doubted = known.iter().find(|(_, known)| known.is_doubted).map(|(node, _)| *node);
            let Some(doubted) = doubted else { return false };
            known.remove(&doubted);
        }
        let before = known.insert(node, KnownShift { shift, is_doubted: false });
        before.is_none_or(|before| before.shift != shift)
    }

    /// How far a contact's clock is off, by which to dial it; none where there is nothing to go by.
    pub fn believed(&self, node: &NodeKey) -> Option<DayShift> {
        self.lock().get(node).filter(|known| !known.is_doubted).map(|known| known.shift)
    }

    /// Notes that a contact was dialled in vain, by the day that it has shown or by another: the next dial goes by what this one did not.
    pub fn doubt(&self, node: &NodeKey, was_as_shown: bool) {
        if let Some(known) = self.lock().get_mut(node) {
            known.is_doubted = was_as_shown;
        }
    }

    /// How far the clocks of contacts are off, each once.
    pub fn shifts(&self) -> Vec<DayShift> {
        let mut shifts: Vec<_> = self.lock().values().map(|known| known.shift).collect();
        shifts.sort_unstable();
        shifts.dedup();
        shifts
    }

    fn write(&self) -> std::io::Result<()> {
        // Held while it is written, so that of two writes the later one has the later state.
        let known = self.lock();
        let mut lines: Vec<_> = known.iter().map(|(node, known)| format!("{node} {}\n", known.shift.0)).collect();
        lines.sort_unstable();
        write_atomically(&self.path, lines.concat().as_bytes(), MODE)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeKey, KnownShift>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_line(line: &str) -> Option<(NodeKey, DayShift)> {
    let (node, days) = line.split_once(' ')?;
    let days: i32 = days.parse().ok().filter(|days: &i32| *days != 0 && days.abs() <= MAX_DAYS)?;
    Some((node.parse().ok()?, DayShift(days)))
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    fn node(seed: u8) -> NodeKey {
        NodeSecret::from_bytes(&[seed; 32]).public()
    }

    #[tokio::test]
    async fn what_a_contact_proves_last_counts_over_restarts_until_its_clock_is_right() {
        let home = tempfile::tempdir().unwrap();
        let days = ContactDays::open(home.path());
        days.proved(node(1), DayShift(1)).await;
        days.proved(node(2), DayShift(-2)).await;
        days.proved(node(1), DayShift(2)).await;
        let again = ContactDays::open(home.path());
        assert_eq!((again.believed(&node(1)), again.believed(&node(2))), (Some(DayShift(2)), Some(DayShift(-2))));
        assert_eq!(again.shifts(), [DayShift(-2), DayShift(2)]);
        again.proved(node(2), DayShift(0)).await;
        assert_eq!(ContactDays::open(home.path()).shifts(), [DayShift(2)]);
    }

    #[tokio::test]
    async fn what_is_dialled_in_vain_is_doubted_each_other_time() {
        let home = tempfile::tempdir().unwrap();
        let days = ContactDays::open(home.path());
        days.proved(node(1), DayShift(1)).await;
        let tried: Vec<_> = (0..3)
            .map(|_| {
                let believed = days.believed(&node(1));
                days.doubt(&node(1), believed.is_some());
                believed
            })
            .collect();
        assert_eq!(tried, [Some(DayShift(1)), None, Some(DayShift(1))]);
        days.proved(node(1), DayShift(1)).await;
        assert_eq!(days.believed(&node(1)), Some(DayShift(1)));
    }

    #[tokio::test]
    async fn no_more_contacts_are_remembered_than_there_is_room_for() {
        let home = tempfile::tempdir().unwrap();
        let days = ContactDays::open(home.path());
        for seed in 0..=MAX_CONTACTS as u8 {
            days.proved(node(seed), DayShift(1)).await;
        }
        assert_eq!(days.lock().len(), MAX_CONTACTS);
        assert_eq!(days.believed(&node(64)), None);
        days.doubt(&node(3), true);
        days.proved(node(64), DayShift(1)).await;
        assert_eq!(days.believed(&node(64)), Some(DayShift(1)));
        assert!(!days.lock().contains_key(&node(3)));
        assert_eq!(ContactDays::open(home.path()).lock().len(), MAX_CONTACTS);
    }

    #[test]
    fn lines_that_say_nothing_sound_are_left_out() {
        let home = tempfile::tempdir().unwrap();
        let text = format!("nonsense\n{} 0\n{} 99999999999\n{} 401\n{} -3\n", node(1), node(2), node(3), node(4));
        fs::write(home.path().join(FILE), text).unwrap();
        assert_eq!(ContactDays::open(home.path()).shifts(), [DayShift(-3)]);
    }
}
