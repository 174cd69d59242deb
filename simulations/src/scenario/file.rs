//! The text of a scenario: TOML that knows where each value stands, what it includes, and the values that it repeats over.
//!
//! What it is not: what names in it stand for (`plan`).

pub(crate) mod form;
pub(crate) mod include;
pub(crate) mod keys;
pub(crate) mod problem;
pub(crate) mod scalar;
pub(crate) mod source;
pub(crate) mod tree;
pub(crate) mod values;
