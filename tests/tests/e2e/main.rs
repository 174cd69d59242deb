//! End to end: real processes of the `keyferry` binary on loopback.
//!
//! What it is not: a benchmark or a load test; see the `keyferry-sim` package.

mod audiences;
mod changing;
mod clocks;
mod command_line;
mod embedding;
mod folders;
mod identities;
mod paths;
mod resume;
mod same_key;
mod sharing;
mod sources;
mod store;
mod streaming;
mod targets;
mod updating;
mod waiting;
