//! What has to hold at the end. An expectation that could not be judged is a mistake in the file.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    commands::{By, Places},
    events,
    limits::Limits,
    names::Names,
    order::Order,
    steps::Draft,
    words::{Words, of_event},
};
use crate::scenario::{
    file::{
        form::{Fields, Form, text_of, texts_of},
        keys,
        problem::{Problems, quoted},
        scalar::size_words,
        tree::{Table, Value},
    },
    model::{Action, ExpectationKind, NodeId, PathClass, ProcessId, SiteId, StepId, Window},
};

/// How many expectations there are at most.
pub(crate) const MAX_EXPECTATIONS: usize = 256;

const BYTES: RangeInclusive<u64> = 0..=1 << 44;
/// How many times as long something may take.
const TIMES: RangeInclusive<f64> = 0.0..=1000.0;
const CODES: RangeInclusive<i64> = 0..=255;

/// How a path came to be (`keyferry::PathStrategy`).
pub(crate) const STRATEGIES: [&str; 8] =
    ["dialled", "accepted", "connected", "opening-syn", "crossing", "to-relay", "through-relay", "from-relay"];

/// Reads expectations.
pub(crate) struct Expecting<'a> {
    pub(crate) places: &'a Places<'a>,
    pub(crate) words: Words<'a>,
    pub(crate) steps: &'a Names<usize>,
    pub(crate) drafts: &'a [Draft],
    pub(crate) order: &'a Order,
    pub(crate) limits: &'a Limits,
}

impl<'a> Expecting<'a> {
    /// What a table says, and that in words.
    pub(crate) fn read(&self, table: &Table) -> Option<(ExpectationKind, String)> {
        let fields = Fields::of(table, &keys::EXPECT, self.problems());
        let said: Vec<&str> = keys::EXPECT.keys.iter().copied().filter(|key| fields.has(key)).collect();
        match said.as_slice() {
            [] => {
                let known = "write exit = { process = \"…\" }, event = { … }, same = { … }, …";
                self.problems().add(fields.at(), "this expects nothing", known);
                None
            }
            [one] => self.kind(one, fields.value(one)?),
            [first, second, ..] => {
                let what = format!("this expects two things: `{first}` and `{second}`");
                self.problems().add(fields.at_of(second), what, "make two of it");
                None
            }
        }
    }

    fn kind(&self, key: &str, value: &Value) -> Option<(ExpectationKind, String)> {
        match key {
            "exit" => self.exit(value),
            "event" => self.event(value, &keys::EVENT),
            "no-event" => self.event(value, &keys::NO_EVENT),
            "same" => self.same(value),
            "path" => self.path(value),
            "took" => self.took(value),
            "slower" => self.slower(value),
            "stall" => self.stall(value),
            "received-beyond" => self.received_beyond(value),
            "memory" => self.memory(value),
            "traffic" => self.traffic(value),
            "no-packet" => self.no_packet(value),
            _ => self.at_least_ok(value),
        }
    }

    fn problems(&self) -> &'a Problems {
        self.places.problems
    }

    fn fields<'v>(&self, value: &'v Value, form: &'static Form) -> Option<Fields<'v>>
    where
        'a: 'v,
    {
        Fields::of_value(value, form, self.places.problems)
    }

    fn exit(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::EXIT)?;
        let code = fields.integer("code", CODES).unwrap_or_default() as i32;
        let processes = self.that_end(&fields, "process")?;
        let words = format!("{} ends with {code}", self.words.processes(&processes));
        Some((ExpectationKind::Exit { processes, code }, words))
    }

    fn event(&self, value: &Value, form: &'static Form) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, form)?;
        let event = events::event(&fields);
        let window = self.window(&fields);
        let processes = self.keyferries(&fields, None)?;
        let (event, window) = (event?, window?);
        let (who, what) = (self.words.processes(&processes), of_event(&event));
        Some(if *form == keys::EVENT {
            (ExpectationKind::Event { processes, event, window }, format!("{who} tells {what}"))
        } else {
            (ExpectationKind::NoEvent { processes, event, window }, format!("{who} does not tell {what}"))
        })
    }

    fn same(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::SAME)?;
        let content = fields.required("content", "\"…\"");
        let content = content.and_then(|content| {
            self.places.contents.one(text_of(content, self.problems())?, content.at, self.problems())
        });
        let path = fields.required("path", "\"out/film\"").and_then(|path| {
            let text = text_of(path, self.problems())?;
            Some((self.places.template(text, path.at, By::Expectation)?, text))
        });
        let nodes = self.nodes(&fields)?;
        let ((path, written), content) = (path?, content?);
        let [node] = nodes.as_slice() else {
            let what = format!("this is of one node, and these are {}", nodes.len());
            self.problems().add(fields.at_of("node"), what, "write one [[expect]] for each");
            return None;
        };
        let words = format!("{written} of {} is right bit for bit", self.words.nodes(&nodes));
        Some((ExpectationKind::Same { content, node: *node, path }, words))
    }

    fn path(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::PATH)?;
        let path = fields.choice("is", &[("direct", PathClass::Direct), ("relay", PathClass::Relay)]);
        let strategies = STRATEGIES.map(|name| (name, name));
        let strategy = fields.choice("strategy", &strategies).map(str::to_owned);
        let ever = fields.truth("ever").unwrap_or_default();
        if !fields.has("is") && !fields.has("strategy") {
            fields.lacks("is", "\"direct\"");
        }
        let processes = self.keyferries(&fields, Some(&["get", "ping", "ls"]))?;
        let class = match path {
            Some(PathClass::Direct) => "direct",
            Some(PathClass::Relay) => "relayed",
            None => "",
        };
        let by = strategy.as_deref().map_or_else(String::new, |strategy| format!(" by {strategy}"));
        let when = if ever { "at some time" } else { "at last" };
        let words = format!("the path of {} is {class}{by} {when}", self.words.processes(&processes));
        Some((ExpectationKind::Path { processes, path, strategy, ever }, words))
    }

    fn took(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::TOOK)?;
        let at_most = self.time(&fields, "at-most");
        let processes = self.that_end(&fields, "process")?;
        let at_most = at_most?;
        let words = format!("{} takes no longer than {at_most:?}", self.words.processes(&processes));
        Some((ExpectationKind::Took { processes, at_most }, words))
    }

    fn slower(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::SLOWER)?;
        let at_most = fields.required("at-most", "2").and_then(|_| fields.number("at-most", TIMES));
        let than = self.that_end(&fields, "than");
        let processes = self.that_end(&fields, "process")?;
        let (than, at_most) = (than?, at_most?);
        let words = format!(
            "{} takes {at_most} times as long as {} at most",
            self.words.processes(&processes),
            self.words.processes(&than)
        );
        Some((ExpectationKind::Slower { processes, than, at_most }, words))
    }

    fn stall(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::STALL)?;
        let at_most = self.time(&fields, "at-most");
        let after = fields.required("after", "\"STEP\"").and_then(|_| self.step(&fields));
        let processes = self.keyferries(&fields, Some(&["get"]))?;
        let (after, at_most) = (after?, at_most?);
        let name = &self.drafts[self.order.sorted[after.0]].name;
        let words = format!("{} stands still for {at_most:?} at most after {name}", self.words.processes(&processes));
        Some((ExpectationKind::Stall { processes, after, at_most }, words))
    }

    fn received_beyond(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::RECEIVED_BEYOND)?;
        let at_most = self.size(&fields);
        let processes = self.keyferries(&fields, Some(&["get"]))?;
        let at_most_bytes = at_most?;
        let size = size_words(at_most_bytes);
        let words = format!("{} receives {size} beyond the content at most", self.words.processes(&processes));
        Some((ExpectationKind::ReceivedBeyond { processes, at_most_bytes }, words))
    }

    fn memory(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::MEMORY)?;
        let at_most = self.size(&fields);
        let processes = self.processes(&fields, "process")?;
        let at_most_bytes = at_most?;
        let size = size_words(at_most_bytes);
        let words = format!("{} has {size} resident at most", self.words.processes(&processes));
        Some((ExpectationKind::Memory { processes, at_most_bytes }, words))
    }

    fn traffic(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::TRAFFIC)?;
        let at_most = self.size(&fields);
        let from = fields.duration("from", self.limits.any()).unwrap_or_default();
        let to = self.time(&fields, "to");
        let nodes = self.nodes(&fields)?;
        let (at_most_bytes_a_minute, to) = (at_most?, to?);
        if to <= from {
            self.problems().add(fields.at_of("to"), "this time ends before it begins", "write a `to` after `from`");
        } else if to > self.order.lasts_at_least(self.drafts) {
            let what = format!("this cannot be judged: the steps may be over before {to:?}");
            self.problems().add(fields.at_of("to"), what, format!("add a step with at = \"{to:?}\""));
        }
        let size = size_words(at_most_bytes_a_minute);
        let words = format!("{} has {size} a minute at most from {from:?} to {to:?}", self.words.nodes(&nodes));
        Some((ExpectationKind::Traffic { nodes, from, to, at_most_bytes_a_minute }, words))
    }

    fn no_packet(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::NO_PACKET)?;
        let from = self.sites(&fields, "from");
        let to = self.sites(&fields, "to");
        let window = self.window(&fields);
        let (from, to, window) = (from?, to?, window?);
        if from.iter().any(|site| to.contains(site)) {
            let what = "packets within a site do not pass its line";
            self.problems().add(fields.at_of("to"), what, "name two different sites");
        }
        let words = format!("no packet comes from {} to {}", self.words.sites(&from), self.words.sites(&to));
        Some((ExpectationKind::NoPacket { from, to, window }, words))
    }

    fn at_least_ok(&self, value: &Value) -> Option<(ExpectationKind, String)> {
        let fields = self.fields(value, &keys::AT_LEAST_OK)?;
        let at_least = fields.required("at-least", "1").and_then(|_| fields.count("at-least", 1..=4_096));
        let processes = self.that_end(&fields, "process")?;
        let at_least = at_least?;
        if at_least > processes.len() {
            let what = format!("these are only {} processes", processes.len());
            self.problems().add(fields.at_of("at-least"), what, "expect no more of them");
        }
        let words = format!("{at_least} or more of {} end with 0", self.words.processes(&processes));
        Some((ExpectationKind::AtLeastOk { processes, at_least }, words))
    }

    fn time(&self, fields: &Fields<'_>, key: &str) -> Option<Duration> {
        fields.required(key, "\"5s\"")?;
        fields.duration(key, self.limits.any())
    }

    fn size(&self, fields: &Fields<'_>) -> Option<u64> {
        fields.required("at-most", "\"1 MiB\"")?;
        fields.bytes("at-most", BYTES)
    }

    fn processes(&self, fields: &Fields<'_>, key: &str) -> Option<Vec<ProcessId>> {
        let named = texts_of(fields.required(key, "\"NODE.NAME\"")?, self.problems());
        let found = self.words.processes.names.find_all(&named, self.problems());
        (!found.is_empty()).then_some(found)
    }

    fn nodes(&self, fields: &Fields<'_>) -> Option<Vec<NodeId>> {
        let named = texts_of(fields.required("node", "\"NODE\"")?, self.problems());
        let found = self.places.nodes.find_all(&named, self.problems());
        (!found.is_empty()).then_some(found)
    }

    fn sites(&self, fields: &Fields<'_>, key: &str) -> Option<Vec<SiteId>> {
        let named = texts_of(fields.required(key, "\"SITE\"")?, self.problems());
        let found = self.places.sites.find_all(&named, self.problems());
        (!found.is_empty()).then_some(found)
    }

    /// The processes; tells of one that never ends.
    fn that_end(&self, fields: &Fields<'_>, key: &str) -> Option<Vec<ProcessId>> {
        let processes = self.processes(fields, key)?;
        let (known, nodes) = (self.words.processes, self.words.nodes);
        if let Some(process) =
            processes.iter().find(|process| known.goes_on(**process, nodes) && !self.is_ended(**process))
        {
            let what = format!("this cannot be judged: {} never ends by itself", quoted(&known.get(*process).name));
            self.problems().add(fields.at_of(key), what, "stop or kill it in a step, or expect something else");
        }
        Some(processes)
    }

    /// Whether a step ends a process.
    fn is_ended(&self, process: ProcessId) -> bool {
        let of = self.words.processes.get(process);
        let is_main = self.words.nodes.get(of.node).main == Some(process);
        self.drafts.iter().any(|draft| match &draft.action {
            Some(Action::Kill { processes, .. }) => processes.contains(&process),
            Some(Action::Stop { nodes }) => is_main && nodes.contains(&of.node),
            _ => false,
        })
    }

    /// Processes that tell events; with `told`, only those that tell of what is expected.
    fn keyferries(&self, fields: &Fields<'_>, told: Option<&[&str]>) -> Option<Vec<ProcessId>> {
        let processes = self.processes(fields, "process")?;
        let known = self.words.processes;
        for process in &processes {
            let name = quoted(&known.get(*process).name);
            let command = known.told(*process).unwrap_or_default();
            let what = if !known.is_keyferry(*process) {
                format!("this cannot be judged: {name} is no keyferry and tells no events")
            } else if told.is_some_and(|told| !told.contains(&command)) {
                format!("this cannot be judged: `keyferry {command}` tells nothing of it")
            } else {
                continue;
            };
            let advice = match told {
                Some(told) => format!("name what runs keyferry {}", told.join(", ")),
                None => "name what runs keyferry".to_owned(),
            };
            self.problems().add(fields.at_of("process"), what, advice);
        }
        Some(processes)
    }

    fn step(&self, fields: &Fields<'_>) -> Option<StepId> {
        let name = fields.text("after")?;
        let step = self.steps.one(name, fields.at_of("after"), self.problems())?;
        Some(StepId(self.order.position(step)))
    }

    fn window(&self, fields: &Fields<'_>) -> Option<Window> {
        let after = if fields.has("after") { Some(self.step(fields)?) } else { None };
        let within = if fields.has("within") { Some(fields.duration("within", self.limits.any())?) } else { None };
        Some(Window { after, within })
    }
}
