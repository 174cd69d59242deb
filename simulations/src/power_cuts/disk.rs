//! A disk that loses power: what programs see of it, what it has for certain, and what it may have of the rest.
//!
//! ```text
//! for certain        what somebody has waited for: the bytes, length and times of a file after its fsync; the names in a folder after
//!                    the fsync of that folder
//! of the rest        changes of names, lengths and times, in their order up to some point; pages of writes, any of them, zeros where
//!                    others would be; both without regard to each other
//! ```
//! That is less than journalling file systems promise: a name does not wait for the bytes behind it, nor they for it.
//!
//! What it is not: a file system that can be mounted; see [`super::mounted`].

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use fuser::Errno;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::tree::{Operation, ROOT, Tree};

/// How likely a page of a write is there that nobody has waited for: no disk is as unlucky, or as lucky, each time.
const PAGES_THERE: [f64; 3] = [0.0, 0.5, 1.0];

/// A disk that several threads use.
#[derive(Debug)]
pub(super) struct Disk {
    contents: Mutex<Contents>,
    released: Condvar,
}

/// All that is on a disk.
#[derive(Debug)]
pub(super) struct Contents {
    /// What programs see.
    pub(super) seen: Tree,
    /// What is there for certain, before what is noted.
    certain: Tree,
    /// What has happened since.
    noted: VecDeque<Noted>,
    /// Numbers are given once.
    next_number: u64,
    changes: u64,
    power: Power,
}

#[derive(Debug)]
struct Noted {
    operation: Operation,
    at: SystemTime,
    is_certain: bool,
}

/// Whether there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// It is cut when so many more changes have been made.
    OnFor(u64),
    /// What wants to change something waits until its process is killed.
    Cut,
    /// What has waited is refused.
    Off,
}

impl Disk {
    pub(super) fn new(uid: u32, gid: u32) -> Self {
        let tree = Tree::new(uid, gid, SystemTime::now());
        let contents = Contents {
            seen: tree.clone(),
            certain: tree,
            noted: VecDeque::new(),
            next_number: ROOT + 1,
            changes: 0,
            power: Power::On,
        };
        Self { contents: Mutex::new(contents), released: Condvar::new() }
    }

    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, if there is power. If that is cut right now, it waits.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Contents) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut contents = self.contents();
        contents.power = match contents.power {
            Power::OnFor(0) => Power::Cut,
            Power::OnFor(changes) => Power::OnFor(changes - 1),
            power => power,
        };
        while contents.power == Power::Cut {
            contents = self.released.wait(contents).unwrap_or_else(PoisonError::into_inner);
        }
        if contents.power == Power::Off {
            return Err(Errno::EIO);
        }
        contents.changes += 1;
        change(&mut contents)
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> u64 {
        self.contents().changes
    }

    /// Has the power cut when so many more changes have been made.
    pub(super) fn cut_after(&self, changes: u64) {
        self.contents().power = Power::OnFor(changes);
    }

    pub(super) fn cut_now(&self) {
        self.contents().power = Power::Cut;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.contents().power == Power::Cut
    }

    /// Refuses what waits since the power was cut.
    pub(super) fn refuse(&self) {
        self.contents().power = Power::Off;
        self.released.notify_all();
    }

    /// Gives power again, to a disk that has no more than it happens to have.
    pub(super) fn power_on(&self, random: &mut StdRng) {
        let mut contents = self.contents();
        contents.lose(random);
        contents.power = Power::On;
    }

    /// Has everything on the disk, as it comes there by itself after some time.
    pub(super) fn settle(&self) {
        let mut contents = self.contents();
        contents.noted.iter_mut().for_each(|noted| noted.is_certain = true);
        contents.drop_certain();
    }
}

impl Contents {
    pub(super) fn new_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    pub(super) fn carry_out(&mut self, operation: Operation) {
        let at = SystemTime::now();
        self.seen.apply(&operation, at);
        self.noted.push_back(Noted { operation, at, is_certain: false });
    }

    /// Has on the disk what belongs to this file or folder.
    pub(super) fn sync(&mut self, is_meant: impl Fn(&Operation) -> bool) {
        for noted in self.noted.iter_mut().filter(|noted| is_meant(&noted.operation)) {
            noted.is_certain = true;
        }
        self.drop_certain();
    }

    fn drop_certain(&mut self) {
        while self.noted.front().is_some_and(|first| first.is_certain) {
            let first = self.noted.pop_front().expect("there is a first one");
            self.certain.apply(&first.operation, first.at);
        }
    }

    fn lose(&mut self, random: &mut StdRng) {
        let in_order = random.random_range(0..=self.noted.len());
        let page_there = *PAGES_THERE.choose(random).expect("there are some");
        for (place, noted) in self.noted.drain(..).enumerate() {
            let (operation, is_there) = (&noted.operation, noted.is_certain || place < in_order);
            match operation {
                Operation::Write { number, offset, bytes } => {
                    if is_there {
                        self.certain.grow(*number, offset + bytes.len(), noted.at);
                    }
                    let is_page_there = || noted.is_certain || random.random_bool(page_there);
                    self.certain.put_pages(*number, *offset, bytes, is_page_there);
                }
                _ if is_there => self.certain.apply(operation, noted.at),
                // It may have bytes and times that are there, and a later name.
                Operation::Create { number, node, .. } => self.certain.bear(*number, node),
                _ => {}
            }
        }
        self.certain.forget_unnamed();
        self.seen = self.certain.clone();
    }
}
