//! The shape of a blob's hash tree above its 64 KiB chunk groups, and of the outboard that holds its parents.
//!
//! ```text
//! outboard = parent | outboard of the left half | outboard of the right half      (pre-order, 64 bytes a parent)
//! parent   = 32 chaining value of the left half | 32 of the right half
//! ```
//! The left half of `n` groups has the greatest power of two below `n`. So a run of `n` groups that is a subtree takes
//! `n - 1` parents in a row, and a segment (256 groups, or the rest) is always a subtree: it can be hashed on its own.
//! This is bao-tree's pre-order outboard with 64 KiB blocks, without its size prefix.
//!
//! What it is not: reading or writing files; all of this is arithmetic and hashing of bytes at hand.

use std::ops::Range;

use keyferry_proto::transfer::groups;
pub(super) use keyferry_proto::transfer::groups::{PARENT_LEN, outboard_len, parent_value as join};

/// The length of a chunk group, in bytes.
pub(super) const GROUP_LEN: u64 = groups::GROUP_LEN as u64;
/// How many groups one worker hashes at a time: 16 MiB of data, under 16 KiB of parents.
pub(super) const SEGMENT_GROUPS: u64 = 256;
/// The same in bytes.
pub(super) const SEGMENT_LEN: u64 = SEGMENT_GROUPS * GROUP_LEN;

/// The chaining value of a subtree; the hash of the blob if the subtree is all of it.
pub(super) type Value = [u8; 32];

/// How many groups a blob of `size` bytes has; an empty one has one, which is empty.
pub(super) fn groups(size: u64) -> u64 {
    groups::group_count(size).max(1)
}

/// How many of `groups` (two or more) are in the left half.
pub(super) fn left_groups(groups: u64) -> u64 {
    groups.next_power_of_two() / 2
}

/// The byte range of a group in a blob of `size` bytes.
pub(super) fn group_bytes(group: u64, size: u64) -> Range<u64> {
    let start = group * GROUP_LEN;
    start..size.min(start + GROUP_LEN)
}

/// A run of groups that is a subtree, and where its parents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subtree {
    /// Its first group.
    pub(super) first_group: u64,
    /// How many groups it has.
    pub(super) groups: u64,
    /// The place of its topmost parent among all parents.
    pub(super) first_parent: u64,
    /// Whether it is the whole blob.
    pub(super) is_root: bool,
}

impl Subtree {
    /// The whole blob.
    pub(super) fn whole(size: u64) -> Self {
        Self { first_group: 0, groups: groups(size), first_parent: 0, is_root: true }
    }

    /// Its two halves; it has at least two groups.
    pub(super) fn halves(self) -> (Self, Self) {
        let left = left_groups(self.groups);
        (
            Self { groups: left, first_parent: self.first_parent + 1, is_root: false, ..self },
            Self {
                first_group: self.first_group + left,
                groups: self.groups - left,
                first_parent: self.first_parent + left,
                is_root: false,
            },
        )
    }

    /// Whether one worker takes it in one piece.
    pub(super) fn is_segment(self) -> bool {
        self.groups <= SEGMENT_GROUPS
    }

    /// The segment that begins at group `segment * 256`.
    pub(super) fn segment(size: u64, segment: u64) -> Self {
        let mut subtree = Self::whole(size);
        while !subtree.is_segment() {
            let (left, right) = subtree.halves();
            subtree = if segment * SEGMENT_GROUPS < right.first_group { left } else { right };
        }
        subtree
    }

    /// Where its parents begin in the outboard, in bytes.
    pub(super) fn outboard_offset(self) -> u64 {
        self.first_parent * PARENT_LEN as u64
    }

    /// How many bytes its parents take.
    pub(super) fn parents_len(self) -> usize {
        (self.groups as usize - 1) * PARENT_LEN
    }
}

/// Hashes one group. `is_root` says that the blob has no other group.
pub(super) fn hash_group(data: &[u8], group: u64, is_root: bool) -> Value {
    groups::leaf_value(group * GROUP_LEN, data, is_root)
}

/// Takes a parent apart.
pub(super) fn split(parent: &[u8; PARENT_LEN]) -> (Value, Value) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&parent[..32]);
    right.copy_from_slice(&parent[32..]);
    (left, right)
}

/// Puts a parent together.
pub(super) fn parent(left: &Value, right: &Value) -> [u8; PARENT_LEN] {
    let mut bytes = [0; PARENT_LEN];
    bytes[..32].copy_from_slice(left);
    bytes[32..].copy_from_slice(right);
    bytes
}

/// Joins the values of a subtree's groups into its own, and writes its parents, `values.len() - 1` of them.
pub(super) fn join_groups(values: &[Value], parents: &mut [u8], is_root: bool) -> Value {
    let [value] = values else {
        let left_len = left_groups(values.len() as u64) as usize;
        let (left_values, right_values) = values.split_at(left_len);
        let (top, below) = parents.split_at_mut(PARENT_LEN);
        let (left_parents, right_parents) = below.split_at_mut((left_len - 1) * PARENT_LEN);
        let left = join_groups(left_values, left_parents, false);
        let right = join_groups(right_values, right_parents, false);
        top.copy_from_slice(&parent(&left, &right));
        return join(&left, &right, is_root);
    };
    *value
}

/// Follows the parents of a subtree down from the value that it must have, and reports the value of every group that
/// they prove. Where a parent is wrong or missing, nothing below it is reported.
pub(super) fn proven_groups(subtree: Subtree, value: &Value, parents: &[u8], report: &mut impl FnMut(u64, Value)) {
    if subtree.groups == 1 {
        return report(subtree.first_group, *value);
    }
    let Some((top, below)) = parents.split_first_chunk::<PARENT_LEN>() else { return };
    let (left_value, right_value) = split(top);
    if join(&left_value, &right_value, subtree.is_root) != *value {
        return;
    }
    let (left, right) = subtree.halves();
    let (left_parents, right_parents) = below.split_at(left.parents_len().min(below.len()));
    proven_groups(left, &left_value, left_parents, report);
    proven_groups(right, &right_value, right_parents, report);
}

#[cfg(test)]
mod tests {
    use bao_tree::{BlockSize, io::outboard::PreOrderMemOutboard};

    use super::*;

    const SIZES: [u64; 12] = [
        0,
        1,
        GROUP_LEN - 1,
        GROUP_LEN,
        GROUP_LEN + 1,
        2 * GROUP_LEN,
        3 * GROUP_LEN + 5,
        7 * GROUP_LEN,
        SEGMENT_LEN,
        SEGMENT_LEN + 1,
        2 * SEGMENT_LEN + 3 * GROUP_LEN + 17,
        3 * SEGMENT_LEN - 1,
    ];

    fn data(size: u64) -> Vec<u8> {
        let mut data = vec![0; size as usize];
        blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
        data
    }

    fn whole(data: &[u8]) -> (Value, Vec<u8>) {
        let size = data.len() as u64;
        let values: Vec<Value> = (0..groups(size))
            .map(|group| {
                let bytes = group_bytes(group, size);
                hash_group(&data[bytes.start as usize..bytes.end as usize], group, groups(size) == 1)
            })
            .collect();
        let mut parents = vec![0; outboard_len(size) as usize];
        (join_groups(&values, &mut parents, true), parents)
    }

    #[test]
    fn hash_and_outboard_are_those_of_blake3_and_bao_tree() {
        for size in SIZES {
            let data = data(size);
            let (hash, parents) = whole(&data);
            let reference = PreOrderMemOutboard::create(&data, BlockSize::from_chunk_log(6));
            assert_eq!(hash, *blake3::hash(&data).as_bytes(), "size {size}");
            assert!(parents == reference.data, "size {size}");
        }
    }

    #[test]
    fn segments_tile_the_blob_and_know_where_their_parents_are() {
        for size in SIZES {
            let data = data(size);
            let (_, parents) = whole(&data);
            for number in 0..size.div_ceil(SEGMENT_LEN).max(1) {
                let segment = Subtree::segment(size, number);
                assert_eq!(segment.first_group, number * SEGMENT_GROUPS, "size {size}");
                assert_eq!(segment.groups, (groups(size) - segment.first_group).min(SEGMENT_GROUPS));
                let values: Vec<Value> = (segment.first_group..segment.first_group + segment.groups)
                    .map(|group| {
                        let bytes = group_bytes(group, size);
                        hash_group(&data[bytes.start as usize..bytes.end as usize], group, groups(size) == 1)
                    })
                    .collect();
                let mut own = vec![0; segment.parents_len()];
                join_groups(&values, &mut own, segment.is_root);
                let offset = segment.outboard_offset() as usize;
                assert!(own == parents[offset..offset + own.len()], "size {size} segment {number}");
            }
        }
    }

    #[test]
    fn a_wrong_or_missing_parent_hides_what_is_below_it_and_nothing_else() {
        let data = data(7 * GROUP_LEN);
        let (hash, parents) = whole(&data);
        let proven = |parents: &[u8]| {
            let mut found = Vec::new();
            proven_groups(Subtree::whole(7 * GROUP_LEN), &hash, parents, &mut |group, _| found.push(group));
            found
        };
        assert_eq!(proven(&parents), [0, 1, 2, 3, 4, 5, 6]);
        // Parents in order: all, 0..4, 0..2, 2..4, 4..7, 4..6.
        let mut wrong = parents.clone();
        wrong[3 * PARENT_LEN] ^= 1;
        assert_eq!(proven(&wrong), [0, 1, 4, 5, 6]);
        wrong[4 * PARENT_LEN] ^= 1;
        assert_eq!(proven(&wrong), [0, 1]);
        assert_eq!(proven(&parents[..3 * PARENT_LEN]), [0, 1]);
        assert_eq!(proven(&[]), [0; 0]);
    }
}
