//! The groups of one blob on the wire, and how each piece is proven: bao's pre-order encoding with groups of 64 KiB.
//!
//! ```text
//! parent   64 bytes: the chaining values of the left and the right subtree
//! leaf     the bytes of one group: 65,536, fewer in the last group of a blob
//! mark     only where the sender has said that it marks leaves; 1 byte before each: 0, all its bytes are zeros and none follow; 1, they follow
//! ```
//! A blob of `n` groups is a binary tree over them (BLAKE3's own). The encoding of a set of groups is a walk from the
//! root, parent before children, left before right, that leaves out every subtree without a wanted group. A blob of one
//! group is that one leaf. The outboard of a blob is all its parents in that order, without any prefix.
//!
//! What it is not: it reads and writes nothing, and keeps neither data nor parents. The caller brings exactly the bytes
//! that are expected next, and puts them where they belong once they are proven.

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    iter::{BaoChunk, ResponseIter},
};
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use crate::{hash::ContentHash, transfer::units::UnitRanges};

/// Bytes in a full group.
pub const GROUP_LEN: usize = 64 * 1024;

/// Bytes of a parent: two chaining values.
pub const PARENT_LEN: usize = 64;

/// The greatest size of a blob, in bytes: 1 PiB. Keeps every sum far from overflow.
pub const MAX_BLOB_SIZE: u64 = 1 << 50;

/// The mark in place of a leaf of zeros.
pub const MARK_ZEROS: u8 = 0;

/// The mark in front of the bytes of a leaf.
pub const MARK_BYTES: u8 = 1;

/// A group of zeros.
pub static ZEROS: [u8; GROUP_LEN] = [0; GROUP_LEN];

/// The same group size in bao-tree's terms: 2^6 chunks of 1 KiB.
pub const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(6);

const CHUNKS_PER_GROUP: u64 = 64;
const CHUNK_LEN: u64 = 1024;

/// How many groups a blob of `size` bytes has; none if it is empty.
pub const fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_LEN as u64)
}

/// The length of the outboard of a blob of `size` bytes: 64 bytes for each parent.
pub const fn outboard_len(size: u64) -> u64 {
    group_count(size).saturating_sub(1) * PARENT_LEN as u64
}

/// One piece of the encoding, as the sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send the 64 bytes at this offset of the outboard.
    Parent {
        /// Offset in the outboard, in bytes.
        outboard_offset: u64,
    },
    /// Send this piece of the blob.
    Leaf {
        /// Offset in the blob, in bytes.
        offset: u64,
        /// Length in bytes, [`GROUP_LEN`] at most.
        len: usize,
    },
}

/// What a decoder needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The [`PARENT_LEN`] bytes of a parent.
    Parent,
    /// The byte that says whether the bytes of a group follow.
    Mark,
    /// The bytes of a group.
    Leaf {
        /// Offset in the blob, in bytes.
        offset: u64,
        /// Length in bytes, [`GROUP_LEN`] at most.
        len: usize,
    },
}

impl Expect {
    /// How many bytes the piece has.
    pub const fn len(self) -> usize {
        match self {
            Self::Parent => PARENT_LEN,
            Self::Mark => 1,
            Self::Leaf { len, .. } => len,
        }
    }

    /// Whether the piece has no bytes: never.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A piece that was proven to belong to the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// A parent: its 64 bytes belong at this offset of the outboard.
    Parent {
        /// Offset in the outboard, in bytes.
        outboard_offset: u64,
    },
    /// A group: its bytes belong at this offset of the blob.
    Leaf {
        /// Offset in the blob, in bytes.
        offset: u64,
        /// Length in bytes, [`GROUP_LEN`] at most.
        len: usize,
    },
    /// A group of nothing but zeros, which are not sent.
    Zeros {
        /// Offset in the blob, in bytes.
        offset: u64,
        /// Length in bytes, [`GROUP_LEN`] at most.
        len: usize,
    },
    /// Nothing yet: the bytes of the next group follow.
    Marked,
}

/// Why a piece, or a claim about a blob, is refused. All but `Length` and `Finished` are the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The claimed size is above [`MAX_BLOB_SIZE`].
    #[error("the peer claims a blob of {size} bytes; at most {MAX_BLOB_SIZE} are allowed")]
    TooLarge {
        /// The claimed size in bytes.
        size: u64,
    },
    /// An empty blob with the hash of something else.
    #[error("the peer claims that {hash} is empty, which it is not")]
    NotEmpty {
        /// The hash that was asked for.
        hash: ContentHash,
    },
    /// A parent does not hash to what its own parent, or the name of the blob, says: the peer lies, or its size does.
    #[error("the peer sent a wrong parent node of {hash} (outboard offset {outboard_offset})")]
    WrongParent {
        /// The blob.
        hash: ContentHash,
        /// Where the parent belongs, in bytes.
        outboard_offset: u64,
    },
    /// A group does not hash to what its parent, or the name of the blob, says: the peer lies, or its size does.
    #[error("the peer sent wrong data of {hash} (offset {offset}, {len} bytes)")]
    WrongLeaf {
        /// The blob.
        hash: ContentHash,
        /// Offset in the blob, in bytes.
        offset: u64,
        /// Length in bytes.
        len: usize,
    },
    /// A mark that is none.
    #[error("the peer sent {got} where the mark of a group was expected")]
    Mark {
        /// The byte.
        got: u8,
    },
    /// The caller brought another number of bytes than [`GroupDecoder::expects`] says.
    #[error("{expected} bytes were expected, the caller gave {got}")]
    Length {
        /// Bytes expected.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The caller brought bytes after the last piece, or after an error.
    #[error("nothing more is expected")]
    Finished,
}

/// The pieces of a set of groups of one blob, in the order in which they are sent.
#[derive(Debug)]
pub struct GroupSteps(Walk);

impl GroupSteps {
    /// Lists the pieces for `groups`, which are numbered from the start of the blob; those past its end are ignored.
    pub fn new(size: u64, groups: &UnitRanges) -> Result<Self, GroupError> {
        Walk::new(size, groups).map(Self)
    }
}

impl Iterator for GroupSteps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(self.0.next()?.step())
    }
}

/// Proves the pieces of a set of groups of one blob, one after the other.
///
/// Its memory does not depend on the size that a peer claims: it keeps one chaining value for each level of the tree.
#[derive(Debug)]
pub struct GroupDecoder {
    hash: ContentHash,
    walk: Walk,
    next: Option<TreePiece>,
    /// What the subtrees that are still to come hash to; the next one on top. At most one for each level.
    expected: Vec<ChainingValue>,
    leaves: Leaves,
}

/// How leaves come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Not at all.
    PassedOver,
    /// As their bytes.
    Bare,
    /// Behind marks; the next one has its mark already, or not.
    Marked { next: bool },
}

impl GroupDecoder {
    /// Starts on `groups` (numbered from the start of the blob; those past its end are ignored) of the blob `hash`,
    /// whose size is what a peer, or a manifest, says.
    pub fn new(hash: ContentHash, size: u64, groups: &UnitRanges) -> Result<Self, GroupError> {
        Self::begin(hash, size, groups, Leaves::Bare)
    }

    /// The same as [`GroupDecoder::new`], of a sender who marks leaves.
    pub fn of_marked(hash: ContentHash, size: u64, groups: &UnitRanges) -> Result<Self, GroupError> {
        Self::begin(hash, size, groups, Leaves::Marked { next: false })
    }

    /// Starts on all parents of the blob, which come without its groups: its outboard.
    pub fn of_parents(hash: ContentHash, size: u64) -> Result<Self, GroupError> {
        Self::begin(hash, size, &UnitRanges::all(), Leaves::PassedOver)
    }

    fn begin(hash: ContentHash, size: u64, groups: &UnitRanges, leaves: Leaves) -> Result<Self, GroupError> {
        if (size == 0) != (hash == ContentHash::EMPTY) {
            return Err(GroupError::NotEmpty { hash });
        }
        let walk = Walk::new(size, groups)?;
        let mut decoder = Self { hash, walk, next: None, expected: vec![*hash.as_bytes()], leaves };
        decoder.advance();
        Ok(decoder)
    }

    /// What must come next; none when everything has come.
    pub fn expects(&self) -> Option<Expect> {
        self.next.map(|piece| match piece.step() {
            Step::Parent { .. } => Expect::Parent,
            Step::Leaf { .. } if self.leaves == (Leaves::Marked { next: false }) => Expect::Mark,
            Step::Leaf { offset, len } => Expect::Leaf { offset, len },
        })
    }

    /// Proves the piece that was expected. After an error nothing more is expected.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<Verified, GroupError> {
        let (Some(piece), Some(expected)) = (self.next, self.expects()) else { return Err(GroupError::Finished) };
        if bytes.len() != expected.len() {
            return Err(GroupError::Length { expected: expected.len(), got: bytes.len() });
        }
        self.next = None;
        let verified = match (expected, piece) {
            (Expect::Mark, TreePiece::Leaf { offset, len, .. }) => match bytes[0] {
                MARK_ZEROS => {
                    self.prove(piece, &ZEROS[..len])?;
                    Verified::Zeros { offset, len }
                }
                MARK_BYTES => {
                    (self.next, self.leaves) = (Some(piece), Leaves::Marked { next: true });
                    return Ok(Verified::Marked);
                }
                got => return Err(GroupError::Mark { got }),
            },
            _ => self.prove(piece, bytes)?,
        };
        self.advance();
        Ok(verified)
    }

    fn advance(&mut self) {
        if let Leaves::Marked { next } = &mut self.leaves {
            *next = false;
        }
        self.next = self.walk.next();
        while self.leaves == Leaves::PassedOver && matches!(self.next, Some(TreePiece::Leaf { .. })) {
            self.expected.pop();
            self.next = self.walk.next();
        }
    }

    fn prove(&mut self, piece: TreePiece, bytes: &[u8]) -> Result<Verified, GroupError> {
        let expected = self.expected.pop().ok_or(GroupError::Finished)?;
        match piece {
            TreePiece::Parent { outboard_offset, is_root, left, right } => {
                let (left_value, right_value) = split_parent(bytes);
                if parent_value(&left_value, &right_value, is_root) != expected {
                    return Err(GroupError::WrongParent { hash: self.hash, outboard_offset });
                }
                if right {
                    self.expected.push(right_value);
                }
                if left {
                    self.expected.push(left_value);
                }
                Ok(Verified::Parent { outboard_offset })
            }
            TreePiece::Leaf { offset, len, is_root } => {
                if leaf_value(offset, bytes, is_root) != expected {
                    return Err(GroupError::WrongLeaf { hash: self.hash, offset, len });
                }
                Ok(Verified::Leaf { offset, len })
            }
        }
    }
}

/// The chaining value of a group that starts at `offset` of its blob; the root hash if it is the whole blob.
///
/// `bytes` is one whole group of 1..=[`GROUP_LEN`] bytes (or no bytes, of an empty blob), `offset` a multiple of
/// [`GROUP_LEN`].
pub fn leaf_value(offset: u64, bytes: &[u8], is_root: bool) -> ChainingValue {
    if is_root {
        return *blake3::hash(bytes).as_bytes();
    }
    blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// The chaining value of a parent; the root hash if it is the root of its blob.
pub fn parent_value(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    if is_root {
        return *hazmat::merge_subtrees_root(left, right, Mode::Hash).as_bytes();
    }
    hazmat::merge_subtrees_non_root(left, right, Mode::Hash)
}

fn split_parent(bytes: &[u8]) -> (ChainingValue, ChainingValue) {
    let mut halves = [[0; 32]; 2];
    for (half, bytes) in halves.iter_mut().zip(bytes.chunks_exact(32)) {
        half.copy_from_slice(bytes);
    }
    (halves[0], halves[1])
}

/// A piece with what is needed to prove it.
#[derive(Debug, Clone, Copy)]
enum TreePiece {
    Parent { outboard_offset: u64, is_root: bool, left: bool, right: bool },
    Leaf { offset: u64, len: usize, is_root: bool },
}

impl TreePiece {
    fn step(self) -> Step {
        match self {
            Self::Parent { outboard_offset, .. } => Step::Parent { outboard_offset },
            Self::Leaf { offset, len, .. } => Step::Leaf { offset, len },
        }
    }
}

/// The walk over the pieces. Ten thousand small files must not cost an iterator each, so one leaf has its own case.
#[derive(Debug)]
enum Walk {
    Single(Option<TreePiece>),
    Tree(Box<TreeWalk>),
}

#[derive(Debug)]
struct TreeWalk {
    tree: BaoTree,
    chunks: ResponseIter,
}

impl Walk {
    fn new(size: u64, groups: &UnitRanges) -> Result<Self, GroupError> {
        if size > MAX_BLOB_SIZE {
            return Err(GroupError::TooLarge { size });
        }
        let count = group_count(size);
        if count <= 1 {
            let wanted = count == 1 && groups.contains(0);
            return Ok(Self::Single(wanted.then_some(TreePiece::Leaf {
                offset: 0,
                len: size as usize,
                is_root: true,
            })));
        }
        let tree = BaoTree::new(size, BLOCK_SIZE);
        Ok(Self::Tree(Box::new(TreeWalk { tree, chunks: ResponseIter::new(tree, chunk_ranges(groups, count)) })))
    }

    fn next(&mut self) -> Option<TreePiece> {
        match self {
            Self::Single(piece) => piece.take(),
            Self::Tree(walk) => walk.chunks.next().map(|chunk| piece(&walk.tree, chunk)),
        }
    }
}

fn piece(tree: &BaoTree, chunk: BaoChunk) -> TreePiece {
    match chunk {
        BaoChunk::Parent { node, is_root, left, right, .. } => {
            let index = tree.pre_order_offset(node).expect("the walk does not go below groups");
            TreePiece::Parent { outboard_offset: index * PARENT_LEN as u64, is_root, left, right }
        }
        BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
            TreePiece::Leaf { offset: start_chunk.0 * CHUNK_LEN, len: size, is_root }
        }
    }
}

/// Groups as bao-tree's set of chunks. A range that reaches the end of the blob is left open, because bao-tree goes
/// below a group unless it is wanted *wholly*, and the last group may have fewer chunks than its place.
fn chunk_ranges(groups: &UnitRanges, count: u64) -> ChunkRanges {
    let mut chunks = ChunkRanges::empty();
    for range in groups.iter().take_while(|range| range.start < count) {
        let start = ChunkNum(range.start * CHUNKS_PER_GROUP);
        chunks |= if range.end >= count {
            ChunkRanges::from(start..)
        } else {
            ChunkRanges::from(start..ChunkNum(range.end * CHUNKS_PER_GROUP))
        };
    }
    chunks
}

#[cfg(test)]
mod tests;
