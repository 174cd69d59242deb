//! Steps in a few words, for people.

use super::{names::EVERYBODY, nodes::Nodes, processes::Processes, sites::Sites};
use crate::scenario::model::{Action, Between, EventMatch, NodeId, Others, ProcessId, SiteId};

/// How many names are told before the rest is only counted.
const MOST_NAMES: usize = 3;

pub(crate) struct Words<'a> {
    pub(crate) sites: &'a Sites,
    pub(crate) nodes: &'a Nodes,
    pub(crate) processes: &'a Processes,
}

impl Words<'_> {
    pub(crate) fn of_action(&self, action: &Action) -> String {
        match action {
            Action::Run { processes, wait: Some(_) } => format!("run {}", self.processes(processes)),
            Action::Run { processes, wait: None } => format!("start {}", self.processes(processes)),
            Action::Kill { processes, signal } => format!("send signal {signal} to {}", self.processes(processes)),
            Action::Stop { nodes } => format!("stop {}", self.nodes(nodes)),
            Action::Start { nodes } => format!("start {} again", self.nodes(nodes)),
            Action::Cut { sites } => format!("cut {} from {}", self.sites(&sites.0), self.others(&sites.1)),
            Action::Heal { sites } => format!("join {} and {} again", self.sites(&sites.0), self.others(&sites.1)),
            Action::Replug { node, to: None, .. } => format!("give {} another address", self.nodes(&[*node])),
            Action::Replug { node, to: Some(site), .. } => {
                format!("move {} to {}", self.nodes(&[*node]), self.sites(&[*site]))
            }
            Action::RestartRouter { sites, .. } => format!("restart the router of {}", self.sites(sites)),
            Action::SetSite { site, .. } => format!("change {}", self.sites(&[*site])),
            Action::SetLink { link } => format!("change the link {}", self.between(link.between)),
            Action::FillDisk { node, .. } => format!("fill the disk of {}", self.nodes(&[*node])),
            Action::WaitFor { event, processes, .. } => {
                format!("wait until {} tells {}", self.processes(processes), of_event(event))
            }
            Action::Pause => "let time pass".to_owned(),
        }
    }

    pub(crate) fn processes(&self, ids: &[ProcessId]) -> String {
        listed(ids.iter().map(|id| self.processes.get(*id).name.as_str()))
    }

    pub(crate) fn nodes(&self, ids: &[NodeId]) -> String {
        listed(ids.iter().map(|id| self.nodes.get(*id).name.as_str()))
    }

    pub(crate) fn sites(&self, ids: &[SiteId]) -> String {
        listed(ids.iter().map(|id| self.sites.get(*id).name.as_str()))
    }

    fn others(&self, others: &Others) -> String {
        match others {
            Others::Sites(sites) => self.sites(sites),
            Others::Everybody => EVERYBODY.to_owned(),
        }
    }

    fn between(&self, between: Between) -> String {
        match between {
            Between::Any => "between any two".to_owned(),
            Between::Of(site) => format!("between {} and everybody", self.sites(&[site])),
            Between::Two(a, b) => format!("between {} and {}", self.sites(&[a]), self.sites(&[b])),
        }
    }
}

/// An event in a few words.
pub(crate) fn of_event(event: &EventMatch) -> String {
    let fields = event.conditions.iter().map(|condition| condition.field.0.join("."));
    let fields: Vec<String> = fields.collect();
    let name = event.event.as_deref().unwrap_or("something");
    if fields.is_empty() { name.to_owned() } else { format!("{name} (by {})", fields.join(", ")) }
}

fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let total = names.len();
    let shown: Vec<&str> = names.take(MOST_NAMES).collect();
    match total - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
