//! Reads a scenario: a file, or one that comes with the program.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    file::{
        include::{self, Shelf},
        problem::{Problems, Refused, suggestion},
        source::{Source, Sources},
        tree::Table,
        values::{self, choices},
    },
    model::Scenario,
    plan, shipped,
};

/// How large all runs of a file may be together: sites, links, nodes, processes, steps and expectations.
const MAX_PARTS: usize = 200_000;

/// How long a file may be, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A scenario's file, read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) question: String,
    /// One for each choice of values; at least one.
    pub(crate) runs: Vec<Scenario>,
    /// The file itself, then what it includes, with their texts.
    pub(crate) sources: Vec<(PathBuf, String)>,
}

/// Reads a file, or the shipped scenario of that name.
pub(crate) fn load(what: &str) -> Result<Loaded, Refused> {
    let path = Path::new(what);
    let is_name = !what.contains('/') && !what.ends_with(".toml");
    if is_name && let Some(shipped) = shipped::find(what).filter(|shipped| !shipped.is_part) {
        return load_text(Path::new(&format!("{what}.toml")), shipped.text.to_owned(), &ShippedOnes);
    }
    match read_file(path) {
        Ok(text) => load_text(path, text, &Disk),
        Err(error) if is_name && error.kind() == io::ErrorKind::NotFound => {
            let known = shipped::scenarios().map(|shipped| shipped.name);
            let advice = format!("{} (`keyferry-sim scenarios` lists all)", suggestion(what, known));
            Err(Refused::without_place(format!("there is no scenario {what:?}, and no such file"), advice))
        }
        Err(error) => Err(Refused::without_place(format!("cannot read {what}: {error}"), "")),
    }
}

pub(super) fn load_text(path: &Path, text: String, shelf: &dyn Shelf) -> Result<Loaded, Refused> {
    let mut sources = Sources::default();
    let problems = Problems::default();
    let file = include::read(Source { path: path.to_owned(), text }, shelf, &mut sources, &problems);
    // Of a file with holes more would be told than is wrong.
    let runs = if problems.has_holes() { Vec::new() } else { runs(path, &file, &sources, &problems) };
    if let Some(refused) = problems.refused(&sources) {
        return Err(refused);
    }
    let question = runs.first().map(|run| run.question.clone()).unwrap_or_default();
    Ok(Loaded { question, runs, sources: sources.into_pairs() })
}

fn runs(path: &Path, file: &Table, sources: &Sources, problems: &Problems) -> Vec<Scenario> {
    let mut runs: Vec<Scenario> = Vec::new();
    let mut parts = 0;
    for choice in choices(file, problems) {
        problems.look_with(&choice.shown);
        let filled = values::fill(file, &choice);
        runs.extend(plan::plan(&name_of(path), &filled, &choice, sources, problems));
        parts += runs.last().map_or(0, parts_of);
        if parts > MAX_PARTS {
            let advice = "make `count`s smaller, or take values of [matrix] and [[case]] out";
            problems.add(file.at, "all runs together are too large", advice);
        }
        // The others would tell the same again.
        if !problems.is_empty() {
            break;
        }
    }
    runs
}

fn parts_of(run: &Scenario) -> usize {
    run.sites.len() + run.links.len() + run.nodes.len() + run.processes.len() + run.steps.len() + run.expectations.len()
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads a text that is no longer than it may be.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Files of this machine.
struct Disk;

impl Shelf for Disk {
    fn text(&self, path: &Path) -> Result<String, String> {
        read_file(path).map_err(|error| error.to_string())
    }
}

/// What is in the program.
struct ShippedOnes;

impl Shelf for ShippedOnes {
    fn text(&self, path: &Path) -> Result<String, String> {
        let name = path.to_str().and_then(|path| path.strip_suffix(".toml"));
        let found = name.and_then(shipped::find);
        found.map(|shipped| shipped.text.to_owned()).ok_or_else(|| "it is not shipped".to_owned())
    }
}
