//! A scenario, built: its network, the folders of its nodes, its content, and what commands on its nodes are started with.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{disk, journal::Journal};
use crate::{
    content,
    network::{
        Engine, FAKETIME, Line, Network, Properties,
        core::{LineId, Way},
    },
    scenario::{
        model::{
            Between, Content, ContentId, ContentKind, ExpectationKind, Link, NodeId, Others, Part, Process, Program,
            Scenario, SiteId, Template,
        },
        presets::PORT_443,
    },
};

/// How long the way between two hosts takes unless a link says otherwise: none.
const USUAL: Way = Way::taking(Duration::ZERO);

/// A network with hosts, before and while something runs in it.
pub(super) struct Lab<'a> {
    scenario: &'a Scenario,
    network: Network,
    keyferry: PathBuf,
    dir: PathBuf,
    links: Mutex<Vec<Link>>,
    /// All lines that a site has had: a host that is plugged in anew has a new one.
    lines: Mutex<HashMap<SiteId, Vec<LineId>>>,
    disks: Mutex<Vec<disk::Mounted>>,
}

impl<'a> Lab<'a> {
    /// Builds it below `dir`, where homes, content and captures go.
    pub(super) fn build(scenario: &'a Scenario, engine: Engine, keyferry: PathBuf, dir: &Path) -> Result<Self> {
        let network = Network::start(engine, USUAL, is_segmented(scenario), dir.join("routers"))?;
        let lab = Self {
            scenario,
            network,
            keyferry,
            dir: dir.to_owned(),
            links: Mutex::new(scenario.links.clone()),
            lines: Mutex::default(),
            disks: Mutex::default(),
        };
        for index in 0..scenario.rendezvous.nodes {
            let name = public_name(index);
            lab.network.add_site(&name, &Properties::public(), Line::numbered(index))?;
            lab.network.plug(&name, &name)?;
            fs::create_dir_all(lab.home_of_public(index))?;
        }
        for (index, site) in scenario.sites.iter().enumerate() {
            let line = Line::numbered(scenario.rendezvous.nodes + index);
            let line = site.properties.network.map_or(line, |network| line.with_v4(network));
            lab.network.add_site(&site.name, &site.properties, line)?;
        }
        for (index, node) in scenario.nodes.iter().enumerate() {
            lab.network.plug(&node.name, &lab.site(node.site).name)?;
            let home = lab.home(NodeId(index));
            fs::create_dir_all(&home)?;
            // A container brings its own along.
            if let Some(bytes) = node.disk_bytes.filter(|_| lab.network.root(&node.name) == Path::new("/")) {
                let mounted = disk::Mounted::new(&home, bytes)?;
                lab.disks.lock().unwrap_or_else(PoisonError::into_inner).push(mounted);
            }
        }
        if scenario.expectations.iter().any(|one| matches!(one.kind, ExpectationKind::NoPacket { .. })) {
            lab.network.core().count_packets();
        }
        for (index, content) in scenario.contents.iter().enumerate() {
            make(content, &lab.content(ContentId(index)), scenario.seed.wrapping_add(index as u64 + 1))?;
        }
        lab.follow_lines()?;
        Ok(lab)
    }

    /// The network, to change it.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// The folder of a node, which is the working folder of what runs there.
    pub(super) fn home(&self, node: NodeId) -> PathBuf {
        self.dir.join("homes").join(&self.scenario.nodes[node.0].name)
    }

    /// Where a content lies.
    pub(super) fn content(&self, content: ContentId) -> PathBuf {
        self.dir.join("content").join(&self.scenario.contents[content.0].name)
    }

    /// Where this process finds a path that a scenario names for a node.
    pub(super) fn path(&self, node: NodeId, path: &Template, journal: &Journal) -> Result<PathBuf> {
        Ok(self.seen(node, &self.home(node).join(self.text(path, node, journal)?)))
    }

    /// Fills the file system of a node but for some bytes.
    pub(super) fn fill_disk(&self, node: NodeId, leave_bytes: u64) -> Result<()> {
        disk::fill(&self.seen(node, &self.home(node)), leave_bytes)
    }

    fn seen(&self, node: NodeId, path: &Path) -> PathBuf {
        let root = self.network.root(&self.scenario.nodes[node.0].name);
        path.strip_prefix("/").map_or_else(|_| path.to_owned(), |inside| root.join(inside))
    }

    /// Opens the way of each link, and captures what is to be captured: again after each change of lines.
    pub(super) fn follow_lines(&self) -> Result<()> {
        for (index, site) in self.scenario.sites.iter().enumerate() {
            let Some(line) = self.network.line(&site.name) else { continue };
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let known = lines.entry(SiteId(index)).or_default();
            if known.contains(&line) {
                continue;
            }
            known.push(line);
            if site.capture {
                let folder = self.dir.join("captures");
                fs::create_dir_all(&folder)?;
                let number = if known.len() > 1 { format!("-{}", known.len()) } else { String::new() };
                self.network.core().capture(line, &folder.join(format!("{}{number}.pcap", site.name)))?;
            }
        }
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.open(link);
        }
        Ok(())
    }

    /// Has a link replace those before it.
    pub(super) fn set_link(&self, link: &Link) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|other| other.between != link.between);
        links.push(link.clone());
        // The narrower are the last to be opened, whenever they came.
        links.sort_by_key(|link| link.between);
        for link in links.iter() {
            self.open(link);
        }
    }

    /// Lets nothing pass between some sites and others any more, or lets it again.
    pub(super) fn cut(&self, sites: &(Vec<SiteId>, Others), is_cut: bool) {
        let core = self.network.core();
        for one in &sites.0 {
            let Some(a) = self.line(*one) else { continue };
            let others: Vec<LineId> = match &sites.1 {
                Others::Sites(others) => others.iter().filter_map(|other| self.line(*other)).collect(),
                Others::Everybody => self.all_lines().into_iter().filter(|line| *line != a).collect(),
            };
            for b in others {
                if is_cut { core.cut(a, b) } else { core.heal(a, b) }
            }
        }
    }

    /// Packets from some sites to others within a time.
    pub(super) fn packets(&self, from: &[SiteId], to: &[SiteId], begin: Instant, end: Instant) -> Result<u64> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |sites: &[SiteId]| -> Vec<LineId> {
            sites.iter().filter_map(|site| lines.get(site)).flatten().copied().collect()
        };
        let (from, to) = (of(from), of(to));
        let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
        let counts = pairs.map(|(a, b)| self.network.core().packets(a, b, begin, end));
        counts.sum::<Option<u64>>().context("nobody has counted the packets")
    }

    /// Bytes that all lines of a site have carried, out of it and into it.
    pub(super) fn carried(&self, site: SiteId) -> (u64, u64) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = lines.get(&site).into_iter().flatten().map(|line| self.network.core().carried(*line));
        carried.fold((0, 0), |(up, down), carried| (up + carried.up_bytes, down + carried.down_bytes))
    }

    /// The command of a process.
    pub(super) fn command(&self, process: &Process, journal: &Journal) -> Result<Command> {
        let (node, home) = (process.node, self.home(process.node));
        let name = &self.scenario.nodes[node.0].name;
        let mut command = match &process.command.program {
            Program::Keyferry => self.keyferry(name, &home),
            Program::Other(program) => self.network.command_in(name, &home, self.text(program, node, journal)?),
        };
        if self.site(self.scenario.nodes[node.0].site).preset == "server-443" {
            command.env("KEYFERRY_LISTEN", PORT_443.to_string());
        }
        for argument in &process.command.arguments {
            command.arg(self.text(argument, node, journal)?);
        }
        for (variable, value) in &process.command.environment {
            command.env(variable, self.text(value, node, journal)?);
        }
        let offset = self.scenario.nodes[node.0].clock.seconds;
        if offset != 0 {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("{offset:+}s"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        Ok(command)
    }

    /// The command of a public node.
    pub(super) fn public_command(&self, index: usize) -> Command {
        let mut command = self.keyferry(&public_name(index), &self.home_of_public(index));
        command.args(["node", "--public", "--listen", &PORT_443.to_string()]);
        if self.scenario.rendezvous.relaying {
            command.arg("--relay");
        }
        command
    }

    fn keyferry(&self, place: &str, home: &Path) -> Command {
        let mut command = self.network.command_in(place, home, &self.keyferry);
        command.arg("--json").arg("--home").arg(home.join("data"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYFERRY_")) {
            command.env_remove(name);
        }
        // An empty list would be one multiaddr that is none.
        if self.scenario.rendezvous.nodes > 0 {
            command.env("KEYFERRY_BOOTSTRAP", self.bootstrap());
        }
        command
    }

    /// The multiaddrs of the public nodes.
    pub(super) fn bootstrap(&self) -> String {
        let addrs = (0..self.scenario.rendezvous.nodes)
            .map(Line::numbered)
            .flat_map(|line| [SocketAddr::new(line.v4.into(), PORT_443), SocketAddr::new(line.v6.into(), PORT_443)]);
        let multiaddr = |addr: SocketAddr| {
            let family = if addr.is_ipv4() { "ip4" } else { "ip6" };
            format!("/{family}/{}/tcp/{}", addr.ip(), addr.port())
        };
        addrs.map(multiaddr).collect::<Vec<_>>().join(",")
    }

    fn text(&self, template: &Template, node: NodeId, journal: &Journal) -> Result<String> {
        let mut text = String::new();
        for part in &template.0 {
            text += &self.filled(part, node, journal)?;
        }
        Ok(text)
    }

    fn filled(&self, part: &Part, node: NodeId, journal: &Journal) -> Result<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(match part {
            Part::Text(text) => text.clone(),
            Part::Captured(name) => journal.captured(name).with_context(|| format!("{{{name}}} was not captured"))?,
            Part::Content(content) => path(self.content(*content)),
            Part::Home => path(self.home(node)),
            Part::HomeOf(other) => path(self.home(*other)),
            Part::AddressOf(other) => first(self.network.addresses(&self.scenario.nodes[other.0].name))?,
            Part::OuterAddressOf(site) => first(self.network.outer_addresses(&self.site(*site).name))?,
            Part::Simulator => path(std::env::current_exe()?),
            Part::Seed => self.scenario.seed.to_string(),
        })
    }

    fn open(&self, link: &Link) {
        let core = self.network.core();
        match link.between {
            Between::Any => core.set_way(None, link.way),
            // The rate is that of the site's line, whoever is at the other end.
            Between::Of(site) => {
                let Some(line) = self.line(site) else { return };
                core.set_rates(line, link.way.rate, link.way.rate);
                for other in self.all_lines().into_iter().filter(|other| *other != line) {
                    core.set_way(Some((line, other)), Way { rate: None, ..link.way });
                }
            }
            Between::Two(a, b) => {
                if let Some(two) = self.line(a).zip(self.line(b)) {
                    core.set_way(Some(two), link.way);
                }
            }
        }
    }

    fn line(&self, site: SiteId) -> Option<LineId> {
        self.network.line(&self.site(site).name)
    }

    fn all_lines(&self) -> Vec<LineId> {
        let public = (0..self.scenario.rendezvous.nodes).map(public_name);
        let names = public.chain(self.scenario.sites.iter().map(|site| site.name.clone()));
        names.filter_map(|name| self.network.line(&name)).collect()
    }

    fn site(&self, site: SiteId) -> &crate::scenario::model::Site {
        &self.scenario.sites[site.0]
    }

    fn home_of_public(&self, index: usize) -> PathBuf {
        self.dir.join("homes").join(public_name(index))
    }
}

/// The name of a public node, and of its site.
pub(super) fn public_name(index: usize) -> String {
    format!("public-{}", index + 1)
}

/// Whether packets fare differently somewhere, at some time.
fn is_segmented(scenario: &Scenario) -> bool {
    use crate::scenario::model::Action;
    let later = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::SetLink { link } => Some(link),
        _ => None,
    });
    scenario.links.iter().chain(later).any(|link| link.way.is_rough())
}

fn make(content: &Content, path: &Path, seed: u64) -> Result<()> {
    let parent = path.parent().context("content lies in a folder")?;
    fs::create_dir_all(parent)?;
    match content.kind {
        ContentKind::File { bytes } => content::random_file(path, seed, bytes),
        ContentKind::Tree { files, bytes_each } => content::small_files(path, seed, files, bytes_each),
    }
}

fn first(addresses: Vec<IpAddr>) -> Result<String> {
    ensure!(!addresses.is_empty(), "there is no address");
    Ok(addresses[0].to_string())
}
