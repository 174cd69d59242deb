//! Arithmetic that overflows is caught in every profile, also in the one that is released: `.ci/run` runs this there.

use std::hint::black_box;

#[test]
#[should_panic(expected = "attempt to add with overflow")]
fn a_sum_that_overflows_is_caught() {
    black_box(black_box(u32::MAX) + 1);
}
