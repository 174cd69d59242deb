//! Transaction ids that a stranger cannot guess (RFC 8489 §5), drawn from one seed.
//!
//! What it is not: a source of randomness; the seed is.

use stun_types::message::TransactionId;

/// A stream of transaction ids from a seed.
pub struct TransactionIds {
    stream: blake3::OutputReader,
}

impl TransactionIds {
    /// The stream of this seed, which must be random.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { stream: blake3::Hasher::new_keyed(&seed).finalize_xof() }
    }

    /// The next id; no two are alike.
    pub fn draw(&mut self) -> TransactionId {
        let mut bytes = [0; 16];
        self.stream.fill(&mut bytes);
        u128::from_be_bytes(bytes).into()
    }
}

impl std::fmt::Debug for TransactionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionIds").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_stream_and_no_two_ids_of_it_are_alike() {
        let (mut one, mut other) = (TransactionIds::new([7; 32]), TransactionIds::new([7; 32]));
        let first = one.draw();
        assert_eq!(first, other.draw());
        assert_ne!(first, one.draw());
        assert_ne!(TransactionIds::new([8; 32]).draw(), first);
    }
}
