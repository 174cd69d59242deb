//! Nodes: hosts at sites, and what runs on them from the beginning.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    layers::name,
    names::{Names, members},
    sites::Sites,
};
use crate::{
    network::{Ipv4, Ipv6},
    scenario::{
        file::{
            form::{Fields, text_of},
            keys,
            problem::{Problems, quoted},
            source::At,
            tree::Table,
        },
        model::{ClockOffset, Node, NodeId, SiteId},
    },
};

/// How many nodes there are at most, all counts together.
pub(crate) const MAX_NODES: usize = 256;
/// How wrong a clock may be.
const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(400 * 86_400);
const DISKS: RangeInclusive<u64> = 1 << 20..=16 << 30;
/// How many hosts a site has at most: the last number of its LAN's addresses tells them apart.
const MAX_HOSTS: usize = 200;

/// All nodes of a scenario.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) list: Vec<Node>,
    /// Where each is written.
    pub(crate) at: Vec<At>,
    pub(crate) names: Names<NodeId>,
    /// Which nodes each table makes.
    of_tables: Vec<Vec<NodeId>>,
}

impl Nodes {
    /// The nodes and their names, without what runs on them.
    pub(crate) fn read(tables: &[Table], sites: &Sites, problems: &Problems) -> Self {
        let mut nodes = Self { list: Vec::new(), at: Vec::new(), names: Names::of("a node"), of_tables: Vec::new() };
        for table in tables {
            let made = nodes.add(&Fields::of(table, &keys::NODE, problems), sites);
            nodes.of_tables.push(made);
        }
        nodes
    }

    fn add(&mut self, fields: &Fields<'_>, sites: &Sites) -> Vec<NodeId> {
        let problems = fields.problems();
        let named = name(fields);
        let count = fields.count("count", 1..=MAX_NODES);
        let clock = ClockOffset { seconds: fields.offset("clock", MAX_CLOCK_OFFSET).unwrap_or_default() };
        let disk_bytes = fields.bytes("disk", DISKS);
        let at_sites = sites_of(fields, sites);
        let (Some((name, at)), Some(at_sites)) = (named, at_sites) else { return Vec::new() };
        let first = self.list.len();
        if first + count.unwrap_or(1) > MAX_NODES {
            problems.add(fields.at_of("count"), "there are too many nodes", format!("at most {MAX_NODES}"));
            return Vec::new();
        }
        for (number, name) in members(name, count).into_iter().enumerate() {
            let site = at_sites[number % at_sites.len()];
            self.names.add(&name, vec![NodeId(self.list.len())], at, problems);
            self.list.push(Node { name, site, main: None, clock, disk_bytes });
            self.at.push(fields.at());
        }
        let made: Vec<NodeId> = (first..self.list.len()).map(NodeId).collect();
        if count.is_some() {
            self.names.add(name, made.clone(), at, problems);
        }
        made
    }

    /// Which nodes a table makes, by its place in the file.
    pub(crate) fn of_table(&self, number: usize) -> &[NodeId] {
        self.of_tables.get(number).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.list[id.0]
    }

    pub(crate) fn at_site(&self, site: SiteId) -> impl Iterator<Item = NodeId> {
        (0..self.list.len()).map(NodeId).filter(move |node| self.list[node.0].site == site)
    }

    /// Tells of sites that have other hosts than they can have. `visited` are those that somebody moves to.
    pub(crate) fn check_sites(&self, sites: &Sites, visited: &[SiteId], problems: &Problems) {
        for (number, site) in sites.list.iter().enumerate() {
            let id = SiteId(number);
            let hosts = self.at_site(id).count();
            let is_public = site.properties.ipv4 == Ipv4::Public || site.properties.ipv6 == Ipv6::Public;
            if hosts > MAX_HOSTS {
                let what = format!("{} has {hosts} hosts", quoted(&site.name));
                problems.add(sites.at[number], what, format!("a site has at most {MAX_HOSTS}"));
            }
            let what = match hosts {
                _ if !is_public => continue,
                0 if visited.contains(&id) => continue,
                1 if !visited.contains(&id) => continue,
                1 => format!("{} is public, has a host, and another moves there", quoted(&site.name)),
                hosts => format!("{} is public and has {hosts} hosts", quoted(&site.name)),
            };
            let advice = "a public site has one; `count` on the site and the node makes several of both";
            // The second host is too many; where there is none, the site is.
            let at = self.at_site(id).nth(1).map_or(sites.at[number], |node| self.at[node.0]);
            problems.add(at, what, advice);
        }
    }
}

fn sites_of(fields: &Fields<'_>, sites: &Sites) -> Option<Vec<SiteId>> {
    let value = fields.required("site", "\"…\"")?;
    let name = text_of(value, fields.problems())?;
    let found = sites.names.find(name, value.at, fields.problems());
    (!found.is_empty()).then_some(found)
}
