//! Which file of a crate uses which, by the paths that its modules mention.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use petgraph::{algo::tarjan_scc, graph::DiGraph};

use crate::code::{How, Meaning, Mention, Module, ModuleId, Modules};

/// How many re-exports lead from a name to where it is defined, at most.
const MAX_REEXPORTS: usize = 16;

/// One file uses another, with the line that says so.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    pub(crate) from: PathBuf,
    pub(crate) line: usize,
    pub(crate) to: PathBuf,
    /// The files of the modules that the path leads through.
    through: Vec<PathBuf>,
}

impl Arrow {
    /// The files that the path names: those of modules on its way, and that where it ends.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.through.iter().chain([&self.to])
    }

    /// Where it is in the source, what stands there, and where it leads.
    pub(crate) fn shown(&self, below: &Path) -> String {
        let text = fs::read_to_string(&self.from).unwrap_or_default();
        let line = text.lines().nth(self.line - 1).unwrap_or_default().trim();
        format!("{}:{}: {line} → {}", shown(&self.from, below), self.line, shown(&self.to, below))
    }
}

/// The path of a file below a folder, as text.
pub(crate) fn shown(file: &Path, below: &Path) -> String {
    file.strip_prefix(below).unwrap_or(file).display().to_string()
}

/// The arrows of the crate whose root is this file. A module that only declares or re-exports what is below it does not use it.
pub(crate) fn arrows(root: &Path) -> io::Result<BTreeSet<Arrow>> {
    let modules = Modules::read(root)?;
    let mut found = BTreeSet::new();
    for (id, module) in modules.all() {
        for mention in &module.mentions {
            for target in targets(&modules, id, mention) {
                let to = modules.get(target.module).file.clone();
                if to != module.file {
                    let through = target.through.iter().map(|id| modules.get(*id).file.clone()).collect();
                    found.insert(Arrow { from: module.file.clone(), to, line: mention.line, through });
                }
            }
        }
    }
    Ok(found)
}

/// The circles: files, in order, each of which leads to each of the others.
pub(crate) fn circles(arrows: &BTreeSet<Arrow>) -> BTreeSet<Vec<PathBuf>> {
    let mut graph = DiGraph::new();
    let files: BTreeSet<_> = arrows.iter().flat_map(|arrow| [&arrow.from, &arrow.to]).collect();
    let nodes: BTreeMap<_, _> = files.into_iter().map(|file| (file, graph.add_node(file))).collect();
    for arrow in arrows {
        graph.add_edge(nodes[&arrow.from], nodes[&arrow.to], ());
    }
    let components = tarjan_scc(&graph).into_iter().filter(|component| component.len() > 1);
    components
        .map(|component| {
            let mut files: Vec<_> = component.into_iter().map(|node| graph[node].clone()).collect();
            files.sort();
            files
        })
        .collect()
}

/// Where a path ends.
struct Target {
    module: ModuleId,
    is_module: bool,
    through: Vec<ModuleId>,
}

fn targets(modules: &Modules, from: ModuleId, mention: &Mention) -> Vec<Target> {
    let module = modules.get(from);
    let Some(target) = resolve(modules, from, &mention.path, 0) else { return Vec::new() };
    match mention.how {
        How::Glob if target.is_module => {
            let names = modules.get(target.module).names.keys().filter(|name| module.words.contains(*name));
            let paths = names.map(|name| [&mention.path[..], std::slice::from_ref(name)].concat());
            paths.filter_map(|path| resolve(modules, from, &path, 0)).filter(|target| !target.is_module).collect()
        }
        // A module that has a name here is used where something of it is.
        _ if target.is_module => Vec::new(),
        How::ReExported if is_below(modules, target.module, from) && !is_said(module, mention) => Vec::new(),
        _ => vec![target],
    }
}

fn is_said(module: &Module, mention: &Mention) -> bool {
    mention.path.last().is_some_and(|name| module.words.contains(name))
}

fn is_below(modules: &Modules, mut one: ModuleId, other: ModuleId) -> bool {
    while let Some(parent) = modules.get(one).parent {
        if parent == other {
            return true;
        }
        one = parent;
    }
    false
}

/// Follows a path, and what is imported under its names; nothing if it leaves the crate.
fn resolve(modules: &Modules, from: ModuleId, path: &[String], depth: usize) -> Option<Target> {
    if depth > MAX_REEXPORTS {
        return None;
    }
    let (first, mut rest) = path.split_first()?;
    let mut target = match first.as_str() {
        "crate" => module(modules.root()),
        "self" => module(from),
        "super" => module(modules.get(from).parent?),
        name => look_up(modules, from, name, !rest.is_empty(), depth)?,
    };
    while let Some((next, after)) = rest.split_first() {
        rest = after;
        if !target.is_module {
            break;
        }
        let at = target.module;
        let mut through = target.through;
        through.push(at);
        target = match next.as_str() {
            "super" => module(modules.get(at).parent?),
            name => match look_up(modules, at, name, !rest.is_empty(), depth) {
                Some(found) => found,
                // Made by a macro, or imported from another crate.
                None => Target { module: at, is_module: is_imported(modules.get(at), name), through: Vec::new() },
            },
        };
        through.append(&mut target.through);
        target.through = through;
    }
    Some(target)
}

fn module(module: ModuleId) -> Target {
    Target { module, is_module: true, through: Vec::new() }
}

fn is_imported(module: &Module, name: &str) -> bool {
    module.names.get(name).is_some_and(|meanings| meanings.iter().any(|meaning| matches!(meaning, Meaning::Import(_))))
}

/// What a name means in a module: a module if a path goes on, or else something in one.
fn look_up(modules: &Modules, at: ModuleId, name: &str, goes_on: bool, depth: usize) -> Option<Target> {
    let here = modules.get(at);
    let mut found: Vec<_> = here
        .names
        .get(name)
        .into_iter()
        .flatten()
        .filter_map(|meaning| match meaning {
            Meaning::Module(id) => Some(module(*id)),
            Meaning::Item => Some(Target { module: at, is_module: false, through: Vec::new() }),
            Meaning::Import(path) => resolve(modules, at, path, depth + 1),
        })
        .collect();
    if found.is_empty() && !here.names.contains_key(name) {
        let globs = here.mentions.iter().filter(|mention| mention.how == How::Glob);
        found.extend(globs.filter_map(|glob| {
            let target =
                resolve(modules, at, &glob.path, depth + 1).filter(|target| target.is_module && target.module != at)?;
            modules.get(target.module).names.contains_key(name).then_some(())?;
            look_up(modules, target.module, name, goes_on, depth + 1)
        }));
    }
    found.sort_by_key(|target| target.is_module != goes_on);
    found.into_iter().next()
}
