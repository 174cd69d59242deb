//! The groups of a blob: a decoder takes exactly what an honest sender sends, and refuses it once a bit has flipped,
//! whatever size is claimed and whichever groups are asked for.

#![no_main]

use keyferry_proto::{
    hash::ContentHash,
    transfer::{
        groups::{
            GROUP_LEN, GroupDecoder, GroupError, GroupSteps, PARENT_LEN, Step, group_count, leaf_value, outboard_len,
            parent_value,
        },
        units::UnitRanges,
    },
};
use libfuzzer_sys::fuzz_target;

/// Groups of the blobs that are made here, at most.
const MAX_GROUPS: u64 = 9;

fuzz_target!(|input: (u32, Vec<(u8, u8)>, Option<(u16, u8)>, u64, Vec<u8>)| {
    let (size, wanted, flip, claimed, noise) = input;
    let size = u64::from(size) % (MAX_GROUPS * GROUP_LEN as u64);
    let groups: UnitRanges = wanted
        .iter()
        .take(8)
        .map(|(start, len)| u64::from(*start % 12)..u64::from(*start % 12) + u64::from(*len % 12))
        .collect();
    honest_and_flipped(size, &groups, flip);
    hostile(claimed, &groups, &noise);
});

fn honest_and_flipped(size: u64, groups: &UnitRanges, flip: Option<(u16, u8)>) {
    let data: Vec<u8> = (0..size).map(|at| (at / 1021 + at) as u8).collect();
    let mut outboard = vec![0; outboard_len(size) as usize];
    let hash = ContentHash::of(&data);
    if size > 0 {
        let root = fill(&data, &mut outboard, 0, group_count(size), 0, true);
        assert_eq!(&root, hash.as_bytes(), "the tree is BLAKE3's");
    }
    let mut decoder = GroupDecoder::new(hash, size, groups).expect("an honest size");
    let mut flip = flip.map(|(at, bit)| (usize::from(at), 1 << (bit % 8)));
    for step in GroupSteps::new(size, groups).expect("an honest size") {
        let mut piece = match step {
            Step::Parent { outboard_offset } => outboard[outboard_offset as usize..][..PARENT_LEN].to_vec(),
            Step::Leaf { offset, len } => data[offset as usize..][..len].to_vec(),
        };
        assert_eq!(decoder.expects().map(|expect| expect.len()), Some(piece.len()));
        match flip.as_mut().filter(|(at, _)| *at < piece.len()) {
            Some((at, bit)) => {
                piece[*at] ^= *bit;
                assert!(decoder.accept(&piece).is_err(), "a flipped bit was taken");
                return;
            }
            None => drop(decoder.accept(&piece).expect("an honest piece")),
        }
        flip = flip.map(|(at, bit)| (at.saturating_sub(piece.len()), bit));
    }
    assert!(decoder.expects().is_none());
}

fn hostile(claimed: u64, groups: &UnitRanges, noise: &[u8]) {
    let hash = ContentHash::of(b"something else");
    for decoder in [GroupDecoder::new(hash, claimed, groups), GroupDecoder::of_marked(hash, claimed, groups)] {
        take_all(decoder, noise);
    }
}

fn take_all(decoder: Result<GroupDecoder, GroupError>, noise: &[u8]) {
    let Ok(mut decoder) = decoder else { return };
    while let Some(expect) = decoder.expects() {
        let piece: Vec<u8> = noise.iter().copied().chain(std::iter::repeat(0)).take(expect.len()).collect();
        if decoder.accept(&piece).is_err() {
            return;
        }
    }
}

/// Writes the parents of the groups `first..end` in pre-order, the first at `outboard[at]`; gives their value.
fn fill(data: &[u8], outboard: &mut [u8], first: u64, end: u64, at: usize, is_root: bool) -> [u8; 32] {
    let count = end - first;
    if count == 1 {
        let start = first as usize * GROUP_LEN;
        return leaf_value(start as u64, &data[start..data.len().min(start + GROUP_LEN)], is_root);
    }
    // The left subtree is the greatest power of two that leaves something to the right.
    let left = 1 << (63 - (count - 1).leading_zeros());
    let left_value = fill(data, outboard, first, first + left, at + PARENT_LEN, false);
    let right_value = fill(data, outboard, first + left, end, at + left as usize * PARENT_LEN, false);
    outboard[at..at + 32].copy_from_slice(&left_value);
    outboard[at + 32..at + 64].copy_from_slice(&right_value);
    parent_value(&left_value, &right_value, is_root)
}
