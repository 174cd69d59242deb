//! What runs on nodes: their own commands, and those of steps.

use super::{
    commands::{By, Places, told},
    names::Names,
    nodes::Nodes,
    sites::Sites,
};
use crate::scenario::{
    file::{form::Fields, keys, problem::Problems, source::At, tree::Table},
    model::{Part, Process, ProcessId, Program, Template},
    presets::PORT_443,
};

/// How many processes there are at most.
const MAX_PROCESSES: usize = 4_096;

/// The preset at which a `keyferry` listens where every firewall lets connections out to, and the variable that says so.
const LISTENS_ON_443: &str = "server-443";
const LISTEN: &str = "KEYFERRY_LISTEN";

/// What starts a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The node itself, at the beginning.
    Node,
    /// A step, by its place in the file.
    Step {
        at: usize,
        /// Whether the step waits until the process has ended.
        waits: bool,
    },
}

/// All processes of a scenario.
#[derive(Debug)]
pub(crate) struct Processes {
    pub(crate) list: Vec<Process>,
    pub(crate) starters: Vec<Starter>,
    pub(crate) names: Names<ProcessId>,
}

impl Processes {
    pub(crate) fn new() -> Self {
        Self { list: Vec::new(), starters: Vec::new(), names: Names::of("a process") }
    }

    /// What runs on nodes from the beginning.
    pub(crate) fn read_mains(&mut self, tables: &[Table], nodes: &mut Nodes, places: &Places<'_>, sites: &Sites) {
        for (number, table) in tables.iter().enumerate() {
            // Its keys were looked at when the nodes were read; a second time adds nothing.
            let fields = Fields::of(table, &keys::NODE, places.problems);
            let Some((command, at)) = places.command(&fields, By::Node) else { continue };
            for id in nodes.of_table(number).to_vec() {
                let node = &mut nodes.list[id.0];
                let process = Process { name: node.name.clone(), node: id, command: command.clone() };
                node.main = self.add(process, Starter::Node, sites.get(node.site).preset, at, places.problems);
            }
        }
    }

    pub(crate) fn add(
        &mut self,
        mut process: Process,
        starter: Starter,
        preset: &str,
        at: At,
        problems: &Problems,
    ) -> Option<ProcessId> {
        if self.list.len() >= MAX_PROCESSES {
            problems.add(at, "too many processes run", format!("at most {MAX_PROCESSES}"));
            return None;
        }
        let environment = &mut process.command.environment;
        if preset == LISTENS_ON_443
            && process.command.program == Program::Keyferry
            && environment.iter().all(|(name, _)| name != LISTEN)
        {
            environment.push((LISTEN.to_owned(), Template(vec![Part::Text(PORT_443.to_string())])));
        }
        let id = ProcessId(self.list.len());
        if self.names.get(&process.name).is_some() {
            let what = format!("two commands are called `{}`", process.name);
            problems.add(at, what, "give one a name of its own: as = \"…\"");
        } else {
            self.names.add(&process.name, vec![id], at, problems);
        }
        self.list.push(process);
        self.starters.push(starter);
        Some(id)
    }

    /// Names what all nodes of a group run: `GROUP`, `GROUP.NAME`.
    pub(crate) fn name_groups(&mut self, nodes: &Nodes) {
        for (group, members) in nodes.names.all() {
            let Some(first) = members.first().filter(|first| nodes.get(**first).name != group) else { continue };
            let prefix = &nodes.get(*first).name;
            let of_first = self.list.iter().filter(|process| process.node == *first);
            let suffixes: Vec<String> =
                of_first.filter_map(|process| process.name.strip_prefix(prefix.as_str())).map(str::to_owned).collect();
            for suffix in suffixes {
                let each = members.iter().map(|node| self.names.get(&format!("{}{suffix}", nodes.get(*node).name)));
                let all: Option<Vec<ProcessId>> = each.map(|ids| ids.and_then(<[ProcessId]>::first).copied()).collect();
                let name = format!("{group}{suffix}");
                if let Some(all) = all.filter(|_| self.names.get(&name).is_none()) {
                    self.names.add_alias(&name, all);
                }
            }
        }
    }

    pub(crate) fn get(&self, id: ProcessId) -> &Process {
        &self.list[id.0]
    }

    pub(crate) fn starter(&self, id: ProcessId) -> Starter {
        self.starters[id.0]
    }

    pub(crate) fn is_keyferry(&self, id: ProcessId) -> bool {
        self.get(id).command.program == Program::Keyferry
    }

    /// What a process tells `keyferry` to do.
    pub(crate) fn told(&self, id: ProcessId) -> Option<&str> {
        told(&self.get(id).command)
    }

    /// Whether it goes on until it is stopped. A `share` goes on, too, unless a node that runs already takes it over.
    pub(crate) fn goes_on(&self, id: ProcessId, nodes: &Nodes) -> bool {
        let node = self.get(id).node;
        let serves = |other: usize| {
            self.list[other].node == node && matches!(self.told(ProcessId(other)), Some("share" | "node" | "relay"))
        };
        match self.told(id) {
            Some("node" | "relay") => true,
            Some("share") => {
                nodes.get(node).main == Some(id) || !(0..self.list.len()).any(|at| at != id.0 && serves(at))
            }
            _ => false,
        }
    }
}
