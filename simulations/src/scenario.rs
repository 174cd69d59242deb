//! Scenarios: what came of a run, the page about it, and two runs side by side.
//!
//! ```text
//! outcome   what came of a run: `result.json` and the lines of `events.jsonl`
//! folder    reads both again
//! report    the page about one run; compare: two runs, in the terminal and as a page
//! page      what pages are made of: one file each that asks for nothing else
//! ```

pub(crate) mod compare;
mod folder;
mod outcome;
mod page;
pub(crate) mod report;
#[cfg(test)]
mod sample;

pub(crate) use folder::FolderError;
