//! The vectors of `docs/vectors`, as an independent program made them: this crate makes the same bytes of them, reads those, and refuses
//! the corrupted ones for the stated reason.

mod cases;
mod content;
mod dialling;
mod offers;
mod relaying;
mod signalling;
