//! Peers that lie, stall and shout: a node neither believes them, nor hangs, nor falls over.
//!
//! What it is not: the decoders alone; those have property tests and fuzz targets.

mod checks;
mod crowds;
mod garbage;
mod getters;
mod guesses;
mod manifests;
mod scanning;
mod sizes;
mod streams;
mod stun;
mod witness;
