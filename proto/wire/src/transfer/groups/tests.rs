use bao_tree::io::{outboard::PreOrderMemOutboard, sync::encode_ranges_validated};
use proptest::prelude::*;

use super::*;

/// Data in which no two groups are alike.
fn data(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn outboard(data: &[u8]) -> PreOrderMemOutboard {
    PreOrderMemOutboard::create(data, BLOCK_SIZE)
}

/// What a sender sends, by [`GroupSteps`].
fn encode(data: &[u8], groups: &UnitRanges) -> Vec<u8> {
    let outboard = outboard(data).data;
    let mut bytes = Vec::new();
    for step in GroupSteps::new(data.len() as u64, groups).unwrap() {
        match step {
            Step::Parent { outboard_offset } => bytes.extend(&outboard[outboard_offset as usize..][..PARENT_LEN]),
            Step::Leaf { offset, len } => bytes.extend(&data[offset as usize..][..len]),
        }
    }
    bytes
}

/// Feeds an encoding to a decoder; gives back what was proven: (offset, bytes) of the leaves, then of the parents.
type Pieces = Vec<(u64, Vec<u8>)>;
fn decode(decoder: &mut GroupDecoder, mut bytes: &[u8]) -> Result<(Pieces, Pieces), GroupError> {
    let (mut leaves, mut parents) = (Vec::new(), Vec::new());
    while let Some(expect) = decoder.expects() {
        let Some((piece, rest)) = bytes.split_at_checked(expect.len()) else { return Err(GroupError::Finished) };
        bytes = rest;
        match decoder.accept(piece)? {
            Verified::Parent { outboard_offset } => parents.push((outboard_offset, piece.to_vec())),
            Verified::Leaf { offset, len } => {
                assert_eq!(expect, Expect::Leaf { offset, len });
                leaves.push((offset, piece.to_vec()));
            }
            Verified::Zeros { offset, len } => leaves.push((offset, vec![0; len])),
            Verified::Marked => assert_eq!(expect, Expect::Mark),
        }
    }
    assert!(bytes.is_empty(), "{} bytes were not expected", bytes.len());
    Ok((leaves, parents))
}

const SIZES: [usize; 14] = [
    1,
    1023,
    1024,
    1025,
    GROUP_LEN - 1,
    GROUP_LEN,
    GROUP_LEN + 1,
    2 * GROUP_LEN - 1024,
    2 * GROUP_LEN,
    2 * GROUP_LEN + 1,
    3 * GROUP_LEN,
    4 * GROUP_LEN,
    5 * GROUP_LEN + 777,
    9 * GROUP_LEN + 1,
];

#[test]
fn the_whole_of_every_size_is_proven_and_gives_data_and_outboard() {
    for size in SIZES {
        let data = data(size);
        let hash = ContentHash::of(&data);
        let encoded = encode(&data, &UnitRanges::all());
        let mut decoder = GroupDecoder::new(hash, size as u64, &UnitRanges::all()).unwrap();
        let (leaves, parents) = decode(&mut decoder, &encoded).unwrap();
        let glue = |pieces: Pieces| pieces.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>();
        assert!(parents.iter().enumerate().all(|(at, (offset, _))| *offset == (at * PARENT_LEN) as u64));
        assert_eq!(parents.len() as u64 * 64, outboard_len(size as u64));
        assert_eq!(glue(parents), outboard(&data).data, "{size}");
        assert_eq!(glue(leaves), data, "{size}");
    }
}

#[test]
fn the_encoding_is_that_of_bao_tree() {
    for size in SIZES {
        let data = data(size);
        let count = group_count(size as u64);
        for groups in [UnitRanges::all(), (0..1).into(), (count / 2..count).into(), (count - 1..count).into()] {
            let mut expected = Vec::new();
            let ranges = chunk_ranges(&groups, count);
            encode_ranges_validated(&data[..], outboard(&data), &ranges, &mut expected).unwrap();
            assert_eq!(encode(&data, &groups), expected, "{size} {groups:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_groups_of_any_blob_are_proven_and_nothing_else(
        size in 1..12 * GROUP_LEN,
        ranges in prop::collection::vec((0..14_u64, 1..6_u64), 0..4),
    ) {
        let data = data(size);
        let groups: UnitRanges = ranges.into_iter().map(|(start, len)| start..start + len).collect();
        let mut decoder = GroupDecoder::new(ContentHash::of(&data), size as u64, &groups).unwrap();
        let (leaves, parents) = decode(&mut decoder, &encode(&data, &groups)).unwrap();
        let wanted: Vec<u64> = (0..group_count(size as u64)).filter(|&group| groups.contains(group)).collect();
        prop_assert_eq!(leaves.iter().map(|(offset, _)| offset / GROUP_LEN as u64).collect::<Vec<_>>(), wanted);
        for (offset, bytes) in leaves {
            prop_assert_eq!(&data[offset as usize..][..bytes.len()], &bytes[..]);
        }
        let outboard = outboard(&data).data;
        for (offset, bytes) in parents {
            prop_assert_eq!(&outboard[offset as usize..][..PARENT_LEN], &bytes[..]);
        }
    }

    #[test]
    fn any_changed_bit_is_refused_within_its_piece(
        size in 1..6 * GROUP_LEN,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let data = data(size);
        let mut encoded = encode(&data, &UnitRanges::all());
        let at = at.index(encoded.len());
        encoded[at] ^= 1_u8 << bit;
        let mut decoder = GroupDecoder::new(ContentHash::of(&data), size as u64, &UnitRanges::all()).unwrap();
        let mut read = 0;
        let refused = loop {
            let Some(expect) = decoder.expects() else { break None };
            let piece = &encoded[read..][..expect.len()];
            match decoder.accept(piece) {
                Ok(_) => read += expect.len(),
                Err(_) => break Some(read..read + expect.len()),
            }
        };
        prop_assert!(refused.is_some_and(|piece| piece.contains(&at)));
        prop_assert_eq!(decoder.expects(), None);
        prop_assert_eq!(decoder.accept(&[0; PARENT_LEN]), Err(GroupError::Finished));
    }

    #[test]
    fn no_claim_and_no_bytes_make_it_panic_or_grow(
        size in prop_oneof![any::<u64>(), 0..1_u64 << 22, (0..63_u32).prop_map(|bits| 1 << bits)],
        ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        seed in any::<u64>(),
    ) {
        let groups: UnitRanges = ranges.into_iter().map(|(a, b)| a.min(b)..a.max(b)).collect();
        let Ok(mut decoder) = GroupDecoder::new(ContentHash::of(&seed.to_le_bytes()), size, &groups) else {
            return Ok(());
        };
        if let Some(expect) = decoder.expects() {
            prop_assert!(expect.len() <= GROUP_LEN);
            prop_assert!(decoder.accept(&vec![7; expect.len()]).is_err());
        }
        prop_assert!(GroupSteps::new(size, &groups).unwrap().take(100).count() <= 100);
    }
}

/// The most that a liar can do: send the true tree for as long as the wrong one has the same shape.
struct Liar<'a> {
    data: &'a [u8],
}

impl Liar<'_> {
    /// The chaining values of the two halves of a range of chunks of the true tree: what is a parent there, at any level.
    fn parent(&self, chunks: std::ops::Range<usize>) -> Option<[u8; 64]> {
        let len = chunks.len();
        (len > 1).then(|| {
            let left = len.next_power_of_two() / 2;
            let halves = [chunks.start..chunks.start + left, chunks.start + left..chunks.end];
            let values = halves.map(|half| self.value(half));
            [values[0], values[1]].concat().try_into().unwrap()
        })
    }

    fn value(&self, chunks: std::ops::Range<usize>) -> [u8; 32] {
        match self.parent(chunks.clone()) {
            None => {
                let bytes = &self.data[chunks.start * 1024..self.data.len().min(chunks.end * 1024)];
                leaf_value(chunks.start as u64 * 1024, bytes, false)
            }
            Some(parent) => {
                let (left, right) = split_parent(&parent);
                parent_value(&left, &right, false)
            }
        }
    }
}

#[test]
fn a_claim_of_terabytes_is_refused_before_the_first_leaf_and_takes_no_memory() {
    let data = data(5 * GROUP_LEN + 10);
    let hash = ContentHash::of(&data);
    let liar = Liar { data: &data };
    for claimed in [1 << 40, (1 << 40) - 1, 5 << 40, MAX_BLOB_SIZE] {
        let mut decoder = GroupDecoder::new(hash, claimed, &UnitRanges::all()).unwrap();
        // Down the left edge: the first parents are true, below them the tree that is claimed goes on and the true one
        // has come to its chunks.
        let mut chunks = 0..data.len().div_ceil(1024);
        let refused = loop {
            assert_eq!(decoder.expects(), Some(Expect::Parent), "{claimed}: a leaf is expected before it is refused");
            let parent = liar.parent(chunks.clone()).unwrap_or([0; 64]);
            match decoder.accept(&parent) {
                Ok(_) => chunks = 0..chunks.len().next_power_of_two() / 2,
                Err(error) => break error,
            }
            assert!(decoder.expected.capacity() <= 64);
        };
        assert!(matches!(refused, GroupError::WrongParent { .. }), "{refused:?}");
    }
    let too_large = GroupDecoder::new(hash, MAX_BLOB_SIZE + 1, &UnitRanges::all()).map(drop);
    assert_eq!(too_large, Err(GroupError::TooLarge { size: MAX_BLOB_SIZE + 1 }));
}

#[test]
fn a_size_that_is_wrong_by_any_amount_is_refused_at_the_end_of_the_blob_at_the_latest() {
    for size in SIZES {
        let data = data(size);
        let hash = ContentHash::of(&data);
        let group = GROUP_LEN as u64;
        let size = size as u64;
        for claimed in [0, 1, size - 1, size + 1, size + 1024, size + group, size * 2, size.saturating_sub(group)] {
            if claimed == size {
                continue;
            }
            let Ok(mut decoder) = GroupDecoder::new(hash, claimed, &UnitRanges::all()) else { continue };
            // The liar sends true bytes, padded, in the places that the false size has for them.
            let mut padded = data.clone();
            padded.resize(claimed as usize, 0);
            let result = decode(&mut decoder, &encode(&padded, &UnitRanges::all()));
            assert!(result.is_err(), "{size} taken for {claimed}");
        }
    }
}

#[test]
fn the_size_is_proven_by_the_last_group_alone() {
    let data = data(5 * GROUP_LEN + 10);
    let hash = ContentHash::of(&data);
    let last = UnitRanges::from(5..6);
    let mut decoder = GroupDecoder::new(hash, data.len() as u64, &last).unwrap();
    let (leaves, _) = decode(&mut decoder, &encode(&data, &last)).unwrap();
    assert_eq!(leaves.len(), 1);
}

#[test]
fn the_empty_blob_has_no_pieces_and_nothing_else_is_empty() {
    let decoder = GroupDecoder::new(ContentHash::EMPTY, 0, &UnitRanges::all()).unwrap();
    assert_eq!(decoder.expects(), None);
    let hash = ContentHash::of(b"x");
    for (hash, size) in [(hash, 0), (ContentHash::EMPTY, 1)] {
        let refused = GroupDecoder::new(hash, size, &UnitRanges::all()).map(drop);
        assert_eq!(refused, Err(GroupError::NotEmpty { hash }));
    }
}

#[test]
fn a_wrong_number_of_bytes_is_the_callers_fault_and_changes_nothing() {
    let data = data(10);
    let mut decoder = GroupDecoder::new(ContentHash::of(&data), 10, &UnitRanges::all()).unwrap();
    assert_eq!(decoder.accept(&data[..9]), Err(GroupError::Length { expected: 10, got: 9 }));
    assert_eq!(decoder.accept(&data), Ok(Verified::Leaf { offset: 0, len: 10 }));
}

#[test]
fn decoders_and_steps_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<GroupDecoder>();
    is_send::<GroupSteps>();
}

#[test]
fn the_parents_of_every_size_are_proven_without_its_groups_and_a_wrong_one_is_refused() {
    for size in SIZES {
        let data = data(size);
        let (hash, encoded) = (ContentHash::of(&data), outboard(&data).data);
        let decoder = || GroupDecoder::of_parents(hash, size as u64).unwrap();
        let (leaves, parents) = decode(&mut decoder(), &encoded).unwrap();
        assert!(leaves.is_empty() && parents.len() * PARENT_LEN == encoded.len(), "{size}");
        for at in (0..encoded.len()).step_by(17) {
            let mut wrong = encoded.clone();
            wrong[at] ^= 1;
            assert!(matches!(decode(&mut decoder(), &wrong), Err(GroupError::WrongParent { .. })), "{size} {at}");
        }
    }
}

#[test]
fn a_mark_stands_for_zeros_only_where_they_are_and_nothing_else_is_a_mark() {
    let mut holed = data(3 * GROUP_LEN + 9);
    holed[GROUP_LEN..2 * GROUP_LEN].fill(0);
    let (hash, all, outboard) = (ContentHash::of(&holed), UnitRanges::all(), outboard(&holed).data);
    // Its parents, then the first leaf, as a sender marks them.
    let begin = || {
        let mut decoder = GroupDecoder::of_marked(hash, holed.len() as u64, &all).unwrap();
        decoder.accept(&outboard[..PARENT_LEN]).unwrap();
        decoder.accept(&outboard[PARENT_LEN..2 * PARENT_LEN]).unwrap();
        decoder
    };
    let mut decoder = begin();
    assert_eq!(decoder.expects(), Some(Expect::Mark));
    let wrong = GroupError::WrongLeaf { hash, offset: 0, len: GROUP_LEN };
    assert_eq!(decoder.accept(&[MARK_ZEROS]), Err(wrong));
    assert_eq!(decoder.expects(), None, "after a lie nothing is expected");
    assert_eq!(begin().accept(&[2]), Err(GroupError::Mark { got: 2 }));

    let mut decoder = begin();
    assert_eq!(decoder.accept(&[MARK_BYTES]), Ok(Verified::Marked));
    assert_eq!(decoder.accept(&holed[..GROUP_LEN]), Ok(Verified::Leaf { offset: 0, len: GROUP_LEN }));
    // Zeros may also come as bytes, or not at all.
    assert_eq!(decoder.expects(), Some(Expect::Mark));
    assert_eq!(decoder.accept(&[MARK_ZEROS]), Ok(Verified::Zeros { offset: GROUP_LEN as u64, len: GROUP_LEN }));
}
