//! What the end-to-end tests stand on: real processes of the `keyferry` binary, in data folders of their own, that are
//! ended when a test ends, however it ends.
//!
//! What it is not: a mock of anything. Events are read from the binary's own `--json` output.

pub mod binary;
pub mod content;
pub mod documentation;
pub mod hostile;
pub mod ice;
pub mod lab;
pub mod namespace;
pub mod process;
pub mod relay;
