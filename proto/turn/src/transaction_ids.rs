//! Transaction ids that a stranger cannot guess (RFC 8489 §5), drawn from one seed.
//!
//! What it is not: a source of randomness; the seed is.

use stun_types::message::TransactionId;

use keyferry_net::random::Random;

/// A stream of transaction ids from a seed.
#[derive(Debug)]
pub struct TransactionIds {
    random: Random,
}

impl TransactionIds {
    /// The stream of this seed, which must be random.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { random: Random::new(seed) }
    }

    /// The next id; no two are alike.
    pub fn draw(&mut self) -> TransactionId {
        self.random.next_u128().into()
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
