//! Scenarios: simulations that are written in one file.
//!
//! ```text
//! file, plan, template   a file, into all runs that it stands for (`load`), or what is wrong with it, and where
//! presets, shipped       sites by the names that people know; what comes with the program
//! model                  one run, with every name known and every value within its bounds
//! run                    builds it, does what it says, and judges
//! outcome, folder        what came of it: `result.json` and the lines of `events.jsonl`
//! report, compare, page  the page about one run; two runs side by side; what pages are made of
//! ```

mod commands;
pub(crate) mod compare;
mod file;
mod folder;
mod load;
mod matching;
pub(crate) mod model;
mod outcome;
mod page;
mod plan;
mod presets;
pub(crate) mod report;
mod run;
#[cfg(test)]
mod sample;
mod shipped;
mod template;
mod words;

pub(crate) use self::{
    commands::{CheckOptions, NewOptions, check, list, new},
    file::problem::Refused,
    folder::FolderError,
    run::{Options as RunOptions, run},
};

#[cfg(test)]
mod tests;
