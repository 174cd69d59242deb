//! What each kind of step does.

use std::ops::RangeInclusive;

use super::{
    commands::{By, Places, short_name},
    events,
    limits::Limits,
    links::{Links, between},
    names::{self, EVERYBODY},
    nodes::Nodes,
    processes::{Processes, Starter},
    sites::{self, Sites},
    words::Words,
};
use crate::{
    network::{Ipv4, Ipv6},
    scenario::{
        file::{
            form::{Fields, Form, text_of, texts_of},
            keys,
            problem::{Problems, quoted, suggestion},
            source::At,
            tree::Value,
        },
        model::{Action, Between, NodeId, Others, Process, Since, SiteId},
    },
};

/// Signals by name (signal(7), as Linux numbers them on all of today's machines).
const SIGNALS: [(&str, i32); 9] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
];

const LEFT_ON_DISK: RangeInclusive<u64> = 0..=16 << 30;

/// Reads actions, with all that they may name.
pub(crate) struct Actions<'a> {
    pub(crate) places: &'a Places<'a>,
    pub(crate) sites: &'a Sites,
    pub(crate) nodes: &'a Nodes,
    pub(crate) processes: &'a mut Processes,
    /// As steps before have made them.
    pub(crate) links: Links,
    /// The same of properties, by site.
    pub(crate) properties: Vec<crate::network::Properties>,
}

impl<'a> Actions<'a> {
    pub(crate) fn problems(&self) -> &'a Problems {
        self.places.problems
    }

    /// Names what groups run, of what is known so far.
    pub(crate) fn name_groups(&mut self) {
        self.processes.name_groups(self.nodes);
    }

    /// A step in a few words.
    pub(crate) fn words(&self, action: &Action) -> String {
        Words { sites: self.sites, nodes: self.nodes, processes: self.processes }.of_action(action)
    }

    /// Reads what stands below `key`, in the step at this place of the file.
    pub(crate) fn read(&mut self, key: &str, step: &Fields<'_>, number: usize, limits: &Limits) -> Option<Action> {
        let value = step.value(key)?;
        match key {
            "run" => self.run(value, number, limits),
            "kill" => self.kill(value),
            "stop" => self.own_processes(value).map(|nodes| Action::Stop { nodes }),
            "start" => self.own_processes(value).map(|nodes| Action::Start { nodes }),
            "cut" => self.two_sides(value).map(|sites| Action::Cut { sites }),
            "heal" => self.two_sides(value).map(|sites| Action::Heal { sites }),
            "replug" => self.replug(value, limits),
            "restart-router" => self.restart_router(value, limits),
            "set" => self.set(value),
            "fill-disk" => self.fill_disk(value),
            _ => self.wait_for(value, limits),
        }
    }

    fn fields<'v>(&self, value: &'v Value, form: &'static Form) -> Option<Fields<'v>>
    where
        'a: 'v,
    {
        Fields::of_value(value, form, self.places.problems)
    }

    fn run(&mut self, value: &Value, number: usize, limits: &Limits) -> Option<Action> {
        let problems = self.problems();
        let fields = self.fields(value, &keys::RUN)?;
        let on = fields.required("on", "\"NODE\"").map(|on| texts_of(on, problems)).unwrap_or_default();
        let nodes = self.nodes.names.find_all(&on, problems);
        let command = self.places.command(&fields, By::Step(number));
        if !fields.has("keyferry") && !fields.has("command") {
            fields.lacks("keyferry", "[\"get\", …]");
        }
        let waits = fields.truth("wait").unwrap_or(true);
        let within = fields.duration("within", limits.any());
        if !waits && within.is_some() {
            problems.add(fields.at_of("within"), "`within` is of a run that is waited for", "take it or `wait` out");
        }
        let (command, at) = command?;
        let name = match fields.text("as") {
            Some(name) => Some(name.to_owned()),
            None => short_name(&command),
        };
        let Some(name) = name else {
            fields.lacks("as", "\"…\", as its program has no name yet");
            return None;
        };
        names::check(&name, fields.at_of("as"), problems);
        let starter = Starter::Step { at: number, waits };
        let mut processes = Vec::new();
        for node in nodes {
            let of = self.nodes.get(node);
            let process = Process { name: format!("{}.{name}", of.name), node, command: command.clone() };
            let preset = self.sites.get(of.site).preset;
            processes.extend(self.processes.add(process, starter, preset, at, problems));
        }
        let wait = waits.then(|| within.unwrap_or(limits.duration));
        (!processes.is_empty()).then_some(Action::Run { processes, wait })
    }

    fn kill(&self, value: &Value) -> Option<Action> {
        let fields = self.fields(value, &keys::KILL)?;
        let named = fields.required("process", "\"NODE\"").map(|value| texts_of(value, self.problems()));
        let processes = self.processes.names.find_all(&named?, self.problems());
        let signal = match fields.text("signal") {
            None => 9,
            Some(name) => self.signal(name, fields.at_of("signal"))?,
        };
        (!processes.is_empty()).then_some(Action::Kill { processes, signal })
    }

    fn signal(&self, name: &str, at: At) -> Option<i32> {
        let short = name.strip_prefix("SIG").unwrap_or(name);
        let found = SIGNALS.iter().find(|(known, _)| *known == short).map(|(_, number)| *number);
        if found.is_none() {
            let known = SIGNALS.iter().map(|(known, _)| *known);
            self.problems().add(at, format!("there is no signal {}", quoted(name)), suggestion(short, known));
        }
        found
    }

    /// Nodes that have a command of their own.
    fn own_processes(&self, value: &Value) -> Option<Vec<NodeId>> {
        let nodes = self.nodes.names.find_all(&texts_of(value, self.problems()), self.problems());
        for node in nodes.iter().map(|node| self.nodes.get(*node)).filter(|node| node.main.is_none()) {
            let what = format!("{} runs nothing of its own", quoted(&node.name));
            self.problems().add(value.at, what, "give the node `keyferry` or `command`, or kill what a step runs");
        }
        (!nodes.is_empty()).then_some(nodes)
    }

    fn two_sides(&self, value: &Value) -> Option<(Vec<SiteId>, Others)> {
        let ends = texts_of(value, self.problems());
        let [(one, at_one), (other, at_other)] = ends.as_slice() else {
            let advice = "write [\"SITE\", \"SITE\"] or [\"SITE\", \"everybody\"]";
            self.problems().add(value.at, "this has two sides", advice);
            return None;
        };
        let one = self.sites.names.find(one, *at_one, self.problems());
        if *other == EVERYBODY {
            return (!one.is_empty()).then_some((one, Others::Everybody));
        }
        let other = self.sites.names.find(other, *at_other, self.problems());
        if let Some(both) = one.iter().find(|site| other.contains(site)) {
            let what = format!("{} is on both sides", quoted(&self.sites.get(*both).name));
            self.problems().add(value.at, what, "name two different sites");
        }
        (!one.is_empty() && !other.is_empty()).then_some((one, Others::Sites(other)))
    }

    fn replug(&self, value: &Value, limits: &Limits) -> Option<Action> {
        let fields = self.fields(value, &keys::REPLUG)?;
        let gone = fields.duration("gone", limits.any()).unwrap_or_default();
        let to = match fields.value("to") {
            None => None,
            Some(to) => Some(self.sites.names.one(text_of(to, self.problems())?, to.at, self.problems())?),
        };
        let node = self.node(&fields)?;
        let site = self.sites.get(self.nodes.get(node).site);
        let has_lan = site.properties.ipv4 != Ipv4::Public && site.properties.ipv6 != Ipv6::Public;
        if to.is_none() && !has_lan {
            let what = format!("{} is a public host, which has no other address", quoted(&self.nodes.get(node).name));
            self.problems().add(fields.at(), what, "write to = \"SITE\"");
        }
        Some(Action::Replug { node, to, gone })
    }

    fn node(&self, fields: &Fields<'_>) -> Option<NodeId> {
        let named = fields.required("node", "\"…\"")?;
        self.nodes.names.one(text_of(named, self.problems())?, named.at, self.problems())
    }

    fn restart_router(&self, value: &Value, limits: &Limits) -> Option<Action> {
        let fields = self.fields(value, &keys::RESTART_ROUTER)?;
        let named = texts_of(fields.required("site", "\"…\"")?, self.problems());
        let sites = self.sites.names.find_all(&named, self.problems());
        for site in sites.iter().map(|site| self.sites.get(*site)) {
            if matches!(site.properties.ipv4, Ipv4::None | Ipv4::Public) && site.properties.ipv6 != Ipv6::Firewalled {
                let what = format!("{} has no router", quoted(&site.name));
                self.problems().add(fields.at_of("site"), what, "name a site with a NAT or a firewall");
            }
        }
        let down = fields.duration("down", limits.any()).unwrap_or_default();
        (!sites.is_empty()).then_some(Action::RestartRouter { sites, down })
    }

    fn set(&mut self, value: &Value) -> Option<Action> {
        let problems = self.problems();
        let fields = self.fields(value, &keys::SET)?;
        let said = |keys: &[&'static str]| keys.iter().copied().find(|key| *key != "between" && fields.has(key));
        let of_link = said(keys::LINK.keys);
        let of_site: Vec<&str> = keys::SITE.keys.iter().copied().filter(|key| keys::SET.keys.contains(key)).collect();
        let of_site = of_site.into_iter().find(|key| fields.has(key));
        let foreign = |key: Option<&str>, what: &str| {
            if let Some(key) = key {
                problems.add(fields.at_of(key), format!("{what} has no `{key}`"), "make two steps of it");
            }
        };
        let nothing = || {
            // What is told already may be what was to change.
            if fields.unknown().next().is_some() {
                return;
            }
            problems.add(fields.at(), "this changes nothing", "write what: mtu = 1280, loss = \"1 %\", …");
        };
        match (fields.value("site"), fields.value("link")) {
            (Some(site), None) => {
                foreign(of_link, "a site");
                if of_site.is_none() && of_link.is_none() {
                    nothing();
                }
                let site = self.sites.names.one(text_of(site, problems)?, site.at, problems)?;
                let properties = &mut self.properties[site.0];
                sites::overlay(properties, &fields);
                sites::check(properties, &fields);
                Some(Action::SetSite { site, properties: properties.clone() })
            }
            (None, Some(link)) => {
                foreign(of_site, "a link");
                if of_link.is_none() && of_site.is_none() {
                    nothing();
                }
                let at = self.one_link(link)?;
                Some(Action::SetLink { link: self.links.set(at, &fields) })
            }
            (None, None) => {
                fields.lacks("site", "\"…\", or link = [\"…\", \"…\"]");
                None
            }
            (Some(_), Some(link)) => {
                problems.add(link.at, "a step changes a site or a link, not both", "make two steps of it");
                None
            }
        }
    }

    fn one_link(&self, value: &Value) -> Option<Between> {
        match between(value, &self.sites.names, self.problems()).as_slice() {
            [] => None,
            [one] => Some(*one),
            several => {
                let what = format!("these are {} links", several.len());
                self.problems().add(value.at, what, "a step changes one: name single sites, or \"everybody\"");
                None
            }
        }
    }

    fn fill_disk(&self, value: &Value) -> Option<Action> {
        let fields = self.fields(value, &keys::FILL_DISK)?;
        let leave_bytes = fields.bytes("leave", LEFT_ON_DISK).unwrap_or_default();
        let node = self.node(&fields)?;
        match self.nodes.get(node).disk_bytes {
            None => {
                let what = format!("{} has no disk of its own to fill", quoted(&self.nodes.get(node).name));
                self.problems().add(fields.at(), what, "write disk = \"64 MiB\" in its [[node]]");
            }
            Some(disk) if leave_bytes >= disk => {
                self.problems().add(fields.at_of("leave"), "the disk is no larger than that", "leave less");
            }
            Some(_) => {}
        }
        Some(Action::FillDisk { node, leave_bytes })
    }

    fn wait_for(&self, value: &Value, limits: &Limits) -> Option<Action> {
        let problems = self.problems();
        let fields = self.fields(value, &keys::WAIT_FOR)?;
        let event = events::event(&fields);
        let since = fields.choice("since", &[("beginning", Since::Beginning), ("now", Since::Now)]);
        let within = fields.duration("within", limits.any()).unwrap_or(limits.duration);
        let captures = events::captures(&fields);
        let named = texts_of(fields.required("process", "\"NODE\"")?, problems);
        let processes = self.processes.names.find_all(&named, problems);
        if !captures.is_empty() && processes.len() > 1 {
            let what = format!("`capture` takes from one process, and these are {}", processes.len());
            problems.add(fields.at_of("capture"), what, "name one process");
        }
        for process in processes.iter().filter(|process| !self.processes.is_keyferry(**process)) {
            let what = format!("{} is no keyferry and tells no events", quoted(&self.processes.get(*process).name));
            problems.add(fields.at_of("process"), what, "wait for its end: run it with wait = true");
        }
        let since = since.unwrap_or(Since::Beginning);
        (!processes.is_empty()).then_some(Action::WaitFor { event: event?, processes, since, within, captures })
    }
}
