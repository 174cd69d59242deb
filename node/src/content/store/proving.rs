//! Which groups of a file belong to a blob, by what its outboard proves. Resuming and rebuilding go by it.
//!
//! What it is not: trust. A chain of parents from the blob's hash down to the group, and the group's own bytes, must
//! all agree; anything less is not the blob's.

use std::{
    fs::File,
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use keyferry_proto::{hash::ContentHash, transfer::units::UnitRanges};

use super::{
    StoreError, disk,
    hashing::workers,
    tree::{self, GROUP_LEN, PARENT_LEN, Subtree, Value},
};

/// Finds out which groups of `data` belong to the blob `hash`, on all cores; see `outboard`.
pub(super) fn proven_on_disk(
    data: &File,
    outboard: Option<&File>,
    outboard_path: &Path,
    hash: &ContentHash,
    size: u64,
) -> Result<UnitRanges, StoreError> {
    if size == 0 {
        return Ok(UnitRanges::empty());
    }
    let failed = |error| StoreError::io("read", outboard_path)(error);
    let available = data.metadata().map_err(failed)?.len().min(size);
    let proof = Proof { data, outboard, size, available };
    let mut segments = Vec::new();
    proof.segments(Subtree::whole(size), *hash.as_bytes(), &mut segments).map_err(failed)?;
    let next = AtomicUsize::new(0);
    let check = || -> io::Result<UnitRanges> {
        let mut buffer = vec![0; GROUP_LEN as usize];
        let mut proven = UnitRanges::empty();
        while let Some((subtree, value)) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            proof.check_segment(*subtree, value, &mut buffer, &mut proven)?;
        }
        Ok(proven)
    };
    if segments.len() <= 1 {
        return check().map_err(failed);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers().min(segments.len())).map(|_| scope.spawn(check)).collect();
        let mut proven = UnitRanges::empty();
        for thread in threads {
            let part = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(failed)?;
            proven = proven.union(&part);
        }
        Ok(proven)
    })
}

/// A file that has some of a blob, and the outboard that may prove it.
struct Proof<'a> {
    data: &'a File,
    outboard: Option<&'a File>,
    /// The size of the blob, in bytes.
    size: u64,
    /// How many of them the file may have.
    available: u64,
}

impl Proof<'_> {
    /// Lists the segments whose value the outboard proves, as far as there are data.
    fn segments(&self, subtree: Subtree, value: Value, segments: &mut Vec<(Subtree, Value)>) -> io::Result<()> {
        if subtree.first_group * GROUP_LEN >= self.available {
            return Ok(());
        }
        if subtree.is_segment() {
            segments.push((subtree, value));
            return Ok(());
        }
        let mut parent = [0; PARENT_LEN];
        let Some(outboard) = self.outboard else { return Ok(()) };
        if disk::read_up_to(outboard, &mut parent, subtree.outboard_offset())? < PARENT_LEN {
            return Ok(());
        }
        let (left_value, right_value) = tree::split(&parent);
        if tree::join(&left_value, &right_value, subtree.is_root) != value {
            return Ok(());
        }
        let (left, right) = subtree.halves();
        self.segments(left, left_value, segments)?;
        self.segments(right, right_value, segments)
    }

    /// Reads and hashes the groups of a segment that its parents prove.
    fn check_segment(
        &self,
        subtree: Subtree,
        value: &Value,
        buffer: &mut [u8],
        proven: &mut UnitRanges,
    ) -> io::Result<()> {
        let mut parents = vec![0; subtree.parents_len()];
        let len = match self.outboard {
            Some(outboard) => disk::read_up_to(outboard, &mut parents, subtree.outboard_offset())?,
            None => 0,
        };
        let mut groups = Vec::with_capacity(subtree.groups as usize);
        tree::proven_groups(subtree, value, &parents[..len], &mut |group, value| groups.push((group, value)));
        for (group, value) in groups {
            let bytes = tree::group_bytes(group, self.size);
            if bytes.end > self.available {
                continue;
            }
            let buffer = &mut buffer[..(bytes.end - bytes.start) as usize];
            disk::read_exact_at(self.data, buffer, bytes.start)?;
            if tree::hash_group(buffer, group, tree::groups(self.size) == 1) == value {
                proven.insert(group..group + 1);
            }
        }
        Ok(())
    }
}

/// Whether these bytes are a group of the blob, by its outboard.
pub(super) fn is_group(bytes: &[u8], outboard: &File, hash: &ContentHash, size: u64, group: u64) -> io::Result<bool> {
    let (mut subtree, mut value) = (Subtree::whole(size), *hash.as_bytes());
    while subtree.groups > 1 {
        let mut parent = [0; PARENT_LEN];
        disk::read_exact_at(outboard, &mut parent, subtree.outboard_offset())?;
        let (left_value, right_value) = tree::split(&parent);
        if tree::join(&left_value, &right_value, subtree.is_root) != value {
            return Ok(false);
        }
        let (left, right) = subtree.halves();
        (subtree, value) = if group < right.first_group { (left, left_value) } else { (right, right_value) };
    }
    Ok(tree::hash_group(bytes, group, tree::groups(size) == 1) == value)
}

/// Whether the first, the middle and the last group of a file are those of the blob: most files that are another one altogether are
/// found out by these.
pub(super) fn is_likely(data: &File, outboard: &File, hash: &ContentHash, size: u64) -> io::Result<bool> {
    let groups = tree::groups(size);
    let mut buffer = vec![0; GROUP_LEN as usize];
    for group in [0, groups / 2, groups - 1] {
        let range = tree::group_bytes(group, size);
        let bytes = &mut buffer[..(range.end - range.start) as usize];
        disk::read_exact_at(data, bytes, range.start)?;
        if !is_group(bytes, outboard, hash, size, group)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many groups are looked at to see whether two files have anything in common.
const SAMPLES: u64 = 16;

/// Whether any of a few groups, evenly spread, is at its place in a file.
pub(super) fn has_any(data: &File, outboard: &File, hash: &ContentHash, size: u64) -> io::Result<bool> {
    let (groups, available) = (tree::groups(size), data.metadata()?.len());
    let mut buffer = vec![0; GROUP_LEN as usize];
    for sample in 0..SAMPLES.min(groups) {
        let group = sample * groups / SAMPLES.min(groups);
        let range = tree::group_bytes(group, size);
        if range.end > available {
            continue;
        }
        let bytes = &mut buffer[..(range.end - range.start) as usize];
        disk::read_exact_at(data, bytes, range.start)?;
        if is_group(bytes, outboard, hash, size, group)? {
            return Ok(true);
        }
    }
    Ok(false)
}
