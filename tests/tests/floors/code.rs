//! A crate read as modules: which names each has, which paths it mentions. Code for tests alone is left out.
//!
//! What it is not: a parser of Rust. It reads tokens, which is enough for names and paths, and sees those within macros too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// The modules of a crate; the first is its root.
pub(crate) struct Modules(Vec<Module>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModuleId(usize);

pub(crate) struct Module {
    /// Where it stands in the file system; modules written within a file share it.
    pub(crate) file: PathBuf,
    pub(crate) parent: Option<ModuleId>,
    /// What its names stand for. A module and a function may have the same name.
    pub(crate) names: BTreeMap<String, Vec<Meaning>>,
    pub(crate) mentions: Vec<Mention>,
    /// Every word of its code but for imports.
    pub(crate) words: BTreeSet<String>,
}

pub(crate) enum Meaning {
    Module(ModuleId),
    /// Something else that is defined here.
    Item,
    Import(Vec<String>),
}

/// A path of at least two words, or one that is imported.
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    InCode,
    Imported,
    /// Imported for others.
    ReExported,
    /// All that a module has.
    Glob,
}

impl Modules {
    /// Reads the crate whose root is this file.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut modules = Self(Vec::new());
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        modules.read_file(root, folder, None)?;
        Ok(modules)
    }

    pub(crate) fn root(&self) -> ModuleId {
        ModuleId(0)
    }

    pub(crate) fn get(&self, id: ModuleId) -> &Module {
        &self.0[id.0]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (ModuleId, &Module)> {
        self.0.iter().enumerate().map(|(at, module)| (ModuleId(at), module))
    }

    /// `folder` is where the modules below it have their files.
    fn read_file(&mut self, file: &Path, folder: PathBuf, parent: Option<ModuleId>) -> io::Result<ModuleId> {
        let text = fs::read_to_string(file)?;
        let tokens = text.parse().map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        self.read_module(tokens, file, folder, parent)
    }

    fn read_module(
        &mut self,
        tokens: TokenStream,
        file: &Path,
        folder: PathBuf,
        parent: Option<ModuleId>,
    ) -> io::Result<ModuleId> {
        let id = ModuleId(self.0.len());
        let (file, words, names, mentions) = (file.to_owned(), BTreeSet::new(), BTreeMap::new(), Vec::new());
        self.0.push(Module { file: file.clone(), parent, names, mentions, words });
        let mut reading = Reading::new(tokens);
        while let Some(item) = reading.next_item() {
            match item {
                Item::Module { name, body } => {
                    let below = match body {
                        Some(body) => self.read_module(body, &file, folder.join(&name), Some(id))?,
                        None => {
                            let (beside, within) = (folder.join(format!("{name}.rs")), folder.join(&name));
                            let file = if beside.exists() { beside } else { within.join("mod.rs") };
                            self.read_file(&file, within, Some(id))?
                        }
                    };
                    self.0[id.0].name(name, Meaning::Module(below));
                }
                Item::Named(name) => self.0[id.0].name(name, Meaning::Item),
                Item::Import { leaves, public } => self.0[id.0].import(leaves, public),
                Item::Code(code) => self.0[id.0].read_code(code),
            }
        }
        Ok(id)
    }
}

impl Module {
    /// What is defined here and is no module.
    pub(crate) fn defined(&self) -> impl Iterator<Item = &str> {
        let is_item = |meanings: &Vec<Meaning>| meanings.iter().any(|meaning| matches!(meaning, Meaning::Item));
        self.names.iter().filter(move |(_, meanings)| is_item(meanings)).map(|(name, _)| name.as_str())
    }

    fn name(&mut self, name: String, meaning: Meaning) {
        self.names.entry(name).or_default().push(meaning);
    }

    fn import(&mut self, leaves: Vec<Leaf>, public: bool) {
        for Leaf { path, name, line } in leaves {
            let how = match (&name, public) {
                (None, _) => How::Glob,
                (Some(_), true) => How::ReExported,
                (Some(_), false) => How::Imported,
            };
            if let Some(name) = name {
                self.name(name, Meaning::Import(path.clone()));
            }
            self.mentions.push(Mention { path, line, how });
        }
    }

    /// Words and paths of code, groups and macros within it included.
    fn read_code(&mut self, code: TokenStream) {
        let mut reading = Reading::new(code);
        while let Some(token) = reading.next() {
            match token {
                TokenTree::Group(group) => self.read_code(group.stream()),
                TokenTree::Ident(word) if word == "use" && !reading.at_punct('<') => {
                    for Leaf { path, line, .. } in reading.import() {
                        self.mentions.push(Mention { path, line, how: How::Imported });
                    }
                }
                // Who may see something is no use of it.
                TokenTree::Ident(word) if word == "pub" => drop(reading.visibility()),
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    let path = reading.path(word);
                    self.words.extend(path.iter().cloned());
                    if path.len() > 1 {
                        self.mentions.push(Mention { path, line, how: How::InCode });
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

enum Item {
    Module { name: String, body: Option<TokenStream> },
    Named(String),
    Import { leaves: Vec<Leaf>, public: bool },
    Code(TokenStream),
}

/// One path of an import, and the name that it gets here; a glob has none.
struct Leaf {
    path: Vec<String>,
    name: Option<String>,
    line: usize,
}

/// Tokens, read from the front; whatever is `#[cfg(test)]` is passed over.
struct Reading {
    tokens: Vec<TokenTree>,
    at: usize,
}

impl Reading {
    fn new(tokens: TokenStream) -> Self {
        Self { tokens: tokens.into_iter().collect(), at: 0 }
    }

    /// The next part of a module: a name is told before the code that it stands in.
    fn next_item(&mut self) -> Option<Item> {
        let token = self.next()?;
        let TokenTree::Ident(word) = &token else { return Some(Item::Code(token.into())) };
        let public = word == "pub" && self.visibility();
        let word = if public { self.next()? } else { token };
        let TokenTree::Ident(word) = word else { return Some(Item::Code(word.into())) };
        match word.to_string().as_str() {
            "use" if !self.at_punct('<') => Some(Item::Import { leaves: self.import(), public }),
            "mod" => {
                let name = self.next()?.to_string();
                let body = match self.next()? {
                    TokenTree::Group(group) => Some(group.stream()),
                    _ => None,
                };
                Some(Item::Module { name, body })
            }
            "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" if !matches!(self.peek(0), Some(TokenTree::Ident(word)) if word == "fn" || word == "unsafe") => {
                Some(Item::Named(self.next()?.to_string()))
            }
            _ => {
                // A path has to stay whole.
                let from = self.at - 1;
                self.path(word);
                Some(Item::Code(self.tokens[from..self.at].iter().cloned().collect()))
            }
        }
    }

    fn next(&mut self) -> Option<TokenTree> {
        while self.at_punct('#') {
            let attribute = self.peek(1).map(ToString::to_string).unwrap_or_default();
            self.at += if attribute == "!" { 3 } else { 2 };
            if attribute.replace(' ', "") == "[cfg(test)]" {
                self.pass_over();
            }
        }
        let token = self.peek(0)?.clone();
        self.at += 1;
        Some(token)
    }

    /// Passes over an item, a field or a statement.
    fn pass_over(&mut self) {
        while let Some(token) = self.next() {
            let ends = match &token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Punct(punct) => punct.as_char() == ';' || punct.as_char() == ',',
                _ => false,
            };
            if ends {
                break;
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<&TokenTree> {
        self.tokens.get(self.at + ahead)
    }

    fn at_punct(&self, wanted: char) -> bool {
        matches!(self.peek(0), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
    }

    fn at_colons(&self) -> bool {
        self.at_punct(':') && matches!(self.peek(1), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
    }

    /// What may follow a `pub`.
    fn visibility(&mut self) -> bool {
        let Some(TokenTree::Group(group)) = self.peek(0) else { return true };
        let first = group.stream().into_iter().next().map(|token| token.to_string()).unwrap_or_default();
        if ["crate", "in", "self", "super"].contains(&first.as_str()) {
            self.at += 1;
        }
        true
    }

    /// The words of a path that begins with this one.
    fn path(&mut self, first: Ident) -> Vec<String> {
        let mut path = vec![first.to_string()];
        while self.at_colons() {
            let Some(TokenTree::Ident(word)) = self.peek(2) else { break };
            path.push(word.to_string());
            self.at += 3;
        }
        path
    }

    /// What an import names, up to its semicolon.
    fn import(&mut self) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.branch(&[], &mut leaves);
        leaves
    }

    /// One branch of an import, up to a comma or a semicolon.
    fn branch(&mut self, stem: &[String], leaves: &mut Vec<Leaf>) {
        let mut path = stem.to_vec();
        let mut found = None;
        while let Some(token) = self.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ',' || punct.as_char() == ';' => break,
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    leaves.push(Leaf { path: path.clone(), name: None, line: punct.span().start().line });
                    found = None;
                }
                TokenTree::Group(group) => {
                    let mut branches = Reading::new(group.stream());
                    while branches.peek(0).is_some() {
                        branches.branch(&path, leaves);
                    }
                    found = None;
                }
                TokenTree::Ident(word) if word == "as" => {
                    let name = self.next().map(|token| token.to_string());
                    found = found.map(|(_, line)| (name.unwrap_or_default(), line));
                }
                TokenTree::Ident(word) => {
                    let (text, line) = (word.to_string(), word.span().start().line);
                    if text == "self" && !path.is_empty() {
                        found = Some((path.last().cloned().unwrap_or_default(), line));
                    } else {
                        found = Some((text.clone(), line));
                        path.push(text);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        leaves.extend(found.map(|(name, line)| Leaf { path, name: Some(name), line }));
    }
}
