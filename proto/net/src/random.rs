//! Numbers that a stranger cannot guess, drawn from the one seed that a state machine is given.
//!
//! What it is not: a source of randomness; the seed is.

use std::time::Duration;

/// A stream of numbers from a seed.
pub struct Random {
    stream: blake3::OutputReader,
}

impl Random {
    /// Starts the stream of a seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { stream: blake3::Hasher::new_keyed(&seed).finalize_xof() }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from_be_bytes(self.next())
    }

    /// The next 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        u128::from_be_bytes(self.next())
    }

    /// A duration between three quarters of this one and five quarters.
    pub fn jitter(&mut self, around: Duration) -> Duration {
        let share = self.next_u64() % 1024;
        around * 3 / 4 + around / 2 * u32::try_from(share).unwrap_or(0) / 1024
    }

    fn next<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.fill(&mut bytes);
        bytes
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_stream_and_no_two_numbers_of_it_are_alike() {
        let (mut one, mut other) = (Random::new([7; 32]), Random::new([7; 32]));
        let first = one.next_u64();
        assert_eq!(first, other.next_u64());
        assert_ne!(first, one.next_u64());
        assert_ne!(Random::new([8; 32]).next_u64(), first);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut random = Random::new([1; 32]);
        let around = Duration::from_millis(100);
        for _ in 0..64 {
            let jittered = random.jitter(around);
            assert!((Duration::from_millis(75)..=Duration::from_millis(125)).contains(&jittered), "{jittered:?}");
        }
    }
}
