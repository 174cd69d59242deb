//! Commands of nodes and steps, and the places in their arguments.

use std::cell::RefCell;

use super::names::Names;
use crate::scenario::{
    file::{
        form::{Fields, text_of, texts_of},
        problem::{Problems, quoted, suggestion},
        source::At,
        tree::{Kind, Value},
    },
    model::{Command, ContentId, NodeId, Part, Program, SiteId, Template},
    template::{self, BraceError, Token},
};

/// How many arguments a command has at most, and how many variables.
pub(crate) const MAX_WORDS: usize = 64;

/// What `keyferry` can be told to do.
pub(crate) const COMMANDS: [&str; 15] = [
    "share",
    "unshare",
    "shares",
    "get",
    "ls",
    "ping",
    "doctor",
    "node",
    "relay",
    "id",
    "contacts",
    "store",
    "status",
    "completions",
    "man",
];

/// Who fills in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A node's own command, when the node starts.
    Node,
    /// A step, by its place in the file.
    Step(usize),
    /// An expectation, when all is over.
    Expectation,
}

/// A captured value that a text needs.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) by: By,
}

/// Knows what places stand for.
pub(crate) struct Places<'a> {
    pub(crate) problems: &'a Problems,
    pub(crate) sites: &'a Names<SiteId>,
    pub(crate) nodes: &'a Names<NodeId>,
    pub(crate) contents: &'a Names<ContentId>,
    /// All that steps capture.
    pub(crate) captured: Vec<String>,
    pub(crate) needs: RefCell<Vec<Need>>,
}

impl Places<'_> {
    /// A text with its places.
    pub(crate) fn template(&self, text: &str, at: At, by: By) -> Option<Template> {
        let tokens = match template::parse(text) {
            Ok(tokens) => tokens,
            Err(error) => {
                let (what, brace) = match error {
                    BraceError::Open => ("a { has no } after it", "{{"),
                    BraceError::Closed => ("a } has no { before it", "}}"),
                };
                self.problems.add(at, what, format!("write {brace} for a brace that stands for itself"));
                return None;
            }
        };
        let parts = tokens.into_iter().map(|token| match token {
            Token::Text(text) => Some(Part::Text(text)),
            Token::Place(name) => self.part(name, at, by),
        });
        // All of them are looked at, so that all problems are found.
        let parts: Vec<Option<Part>> = parts.collect();
        parts.into_iter().collect::<Option<Vec<Part>>>().map(Template)
    }

    fn part(&self, name: &str, at: At, by: By) -> Option<Part> {
        let words: Vec<&str> = name.split('.').collect();
        match words.as_slice() {
            ["seed"] => Some(Part::Seed),
            ["keyferry-sim"] => Some(Part::Simulator),
            ["home"] if by == By::Expectation => {
                self.problems.add(
                    at,
                    "{home} is of the node that runs a command",
                    "paths are below the node's home anyway",
                );
                None
            }
            ["home"] => Some(Part::Home),
            ["content", name] => self.contents.one(name, at, self.problems).map(Part::Content),
            ["node", name, "home"] => self.nodes.one(name, at, self.problems).map(Part::HomeOf),
            ["node", name, "address"] => self.nodes.one(name, at, self.problems).map(Part::AddressOf),
            ["site", name, "address"] => self.sites.one(name, at, self.problems).map(Part::OuterAddressOf),
            [name] if self.captured.iter().any(|other| other == name) => {
                self.needs.borrow_mut().push(Need { name: (*name).to_owned(), at, by });
                Some(Part::Captured((*name).to_owned()))
            }
            _ => {
                let known = self.known();
                let advice = suggestion(name, known.iter().map(String::as_str));
                self.problems.add(at, format!("nothing is called {}", quoted(&format!("{{{name}}}"))), advice);
                None
            }
        }
    }

    fn known(&self) -> Vec<String> {
        let mut known = vec!["seed".to_owned(), "home".to_owned(), "keyferry-sim".to_owned()];
        known.extend(self.captured.iter().cloned());
        known.extend(self.contents.names().map(|name| format!("content.{name}")));
        for name in self.nodes.names() {
            known.extend([format!("node.{name}.address"), format!("node.{name}.home")]);
        }
        known.extend(self.sites.names().map(|name| format!("site.{name}.address")));
        known
    }

    /// What `keyferry` or `command` say, if one of them does; where that is written.
    pub(crate) fn command(&self, fields: &Fields<'_>, by: By) -> Option<(Command, At)> {
        let environment = self.environment(fields, by);
        let (value, is_keyferry) = match (fields.value("keyferry"), fields.value("command")) {
            (Some(_), Some(other)) => {
                self.problems.add(other.at, "`keyferry` and `command` exclude each other", "take one of them out");
                return None;
            }
            (Some(value), None) => (value, true),
            (None, Some(value)) => (value, false),
            (None, None) => {
                if fields.has("environment") {
                    let what = "`environment` is of a command, and there is none";
                    self.problems.add(
                        fields.at_of("environment"),
                        what,
                        "write `keyferry` or `command`, or take it out",
                    );
                }
                return None;
            }
        };
        let words = self.words(value, by);
        let command = if is_keyferry {
            self.check_keyferry(value, &words);
            Command { program: Program::Keyferry, arguments: words, environment }
        } else {
            let mut words = words.into_iter();
            let Some(program) = words.next() else {
                self.problems.add(value.at, "a command has a program", "write [\"PROGRAM\", \"ARGUMENT\", …]");
                return None;
            };
            Command { program: Program::Other(program), arguments: words.collect(), environment }
        };
        Some((command, value.at))
    }

    fn words(&self, value: &Value, by: By) -> Vec<Template> {
        if !matches!(value.kind, Kind::List(_)) {
            let advice = "write [\"PROGRAM\", \"ARGUMENT\", …]; no shell takes it apart";
            self.problems.add(value.at, format!("a command is a list of texts, and this is {}", value.words()), advice);
            return Vec::new();
        }
        let words = texts_of(value, self.problems);
        if let Some((_, at)) = words.get(MAX_WORDS) {
            self.problems.add(*at, "this command has too many words", format!("at most {MAX_WORDS}"));
        }
        words.into_iter().filter_map(|(text, at)| self.template(text, at, by)).collect()
    }

    fn environment(&self, fields: &Fields<'_>, by: By) -> Vec<(String, Template)> {
        let entries = fields.texts_by_name("environment");
        if let Some((_, value)) = entries.get(MAX_WORDS) {
            self.problems.add(value.at, "these are too many variables", format!("at most {MAX_WORDS}"));
        }
        let mut environment = Vec::new();
        for (name, value) in entries {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problems.add(value.at, format!("{} cannot be a variable", quoted(name)), "");
            }
            let text = text_of(value, self.problems);
            environment
                .extend(text.and_then(|text| self.template(text, value.at, by)).map(|text| (name.to_owned(), text)));
        }
        environment
    }

    fn check_keyferry(&self, value: &Value, words: &[Template]) {
        if words.iter().any(|word| word.plain().is_some_and(|word| COMMANDS.contains(&word))) {
            return;
        }
        match words.iter().find_map(|word| word.plain().filter(|word| !word.starts_with('-'))) {
            Some(word) => self.problems.add_unknown(value.at, "keyferry has no command", word, COMMANDS),
            None => {
                self.problems.add(value.at, "keyferry is not told what to do", "write [\"share\", …] or [\"get\", …]")
            }
        }
    }
}

/// What a command tells `keyferry` to do; none if it is another program.
pub(crate) fn told(command: &Command) -> Option<&str> {
    match command.program {
        Program::Keyferry => {
            command.arguments.iter().find_map(|word| word.plain().filter(|word| COMMANDS.contains(word)))
        }
        Program::Other(_) => None,
    }
}

/// What a command is called, if it is not called otherwise: the command of `keyferry`, or the name of the program's file.
pub(crate) fn short_name(command: &Command) -> Option<String> {
    let program = match &command.program {
        Program::Keyferry => told(command),
        Program::Other(program) => program.plain().and_then(|program| program.rsplit('/').next()),
    };
    program.map(str::to_owned)
}
