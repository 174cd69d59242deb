//! What is shared: the store of content on disk, and its transfer over sessions.
//!
//! What it is not: finding who has it.

pub mod store;
pub mod transfer;
pub mod watching;
