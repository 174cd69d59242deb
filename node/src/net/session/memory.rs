//! Keeps the C library's allocator from giving memory back with every frame.
//!
//! What it is not: an allocator.

use std::{hint::black_box, sync::Once};

/// What glibc may keep at the end of a heap is twice this.
const FREED_BLOCK: usize = 4 * 1024 * 1024;

/// Makes glibc keep a few MiB of freed memory for each heap instead of 128 KiB.
///
/// The multiplexer allocates every frame anew. By default glibc hands that memory back to the kernel at once and gets it
/// again as fresh pages; keeping it saved a quarter of the CPU time of a transfer. Freeing one large block raises both of its
/// thresholds (`mallopt(3)`, "dynamic mmap threshold"); elsewhere it does nothing.
pub(super) fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(FREED_BLOCK))));
}
