//! Where the passphrase of a key comes from: a file, the environment, or whoever sits at the terminal.
//!
//! What it is not: what it protects; see `keyferry::data_dir`.

use std::{io::IsTerminal, path::PathBuf};

use keyferry::{
    config::SecretText,
    control::{Failure, FailureKind},
};
use zeroize::Zeroizing;

use crate::secrets;

/// The environment variable that may hold the passphrase itself, which processes of the same user can see.
pub const PASSPHRASE_VARIABLE: &str = "KEYFERRY_PASSPHRASE";

/// Where to get a passphrase.
#[derive(Debug)]
pub enum PassphraseSource {
    /// It is the one line of this file.
    File(PathBuf),
    /// It stands in the environment.
    Variable,
    /// Whoever sits at the terminal is asked.
    Terminal,
}

impl PassphraseSource {
    /// The file, if one is named; else the environment, if it has one; else the terminal.
    pub fn of(file: Option<PathBuf>) -> Self {
        match file {
            Some(file) => Self::File(file),
            None if std::env::var_os(PASSPHRASE_VARIABLE).is_some_and(|value| !value.is_empty()) => Self::Variable,
            None => Self::Terminal,
        }
    }

    /// Whether others may see the passphrase there.
    pub fn is_seen(&self) -> bool {
        matches!(self, Self::Variable)
    }

    /// Gets the passphrase of a key that exists. Blocks while the user types.
    ///
    /// # Errors
    ///
    /// If it is not there, or there is no terminal to ask at.
    pub fn ask(&self) -> Result<SecretText, Failure> {
        match self {
            Self::File(file) => secrets::line(file),
            Self::Variable => from_environment(),
            Self::Terminal => prompt("Passphrase of the key: "),
        }
    }

    /// Gets a passphrase for a new key; at the terminal it is asked for twice. Blocks while the user types.
    ///
    /// # Errors
    ///
    /// If it is not there, or there is no terminal to ask at, or the two differ.
    pub fn ask_new(&self) -> Result<SecretText, Failure> {
        let Self::Terminal = self else { return self.ask() };
        let first = prompt("Passphrase for the new key: ")?;
        if first.is_empty() {
            return Err(Failure::new(FailureKind::Usage, "a passphrase cannot be empty")
                .try_to("`keyferry id --new` without --passphrase, if none is wanted"));
        }
        if prompt("Once more: ")? == first {
            Ok(first)
        } else {
            Err(Failure::new(FailureKind::Usage, "the two passphrases differ").try_to("it again"))
        }
    }
}

fn from_environment() -> Result<SecretText, Failure> {
    let not_unicode = |_| Failure::new(FailureKind::Usage, format!("${PASSPHRASE_VARIABLE} is not Unicode"));
    Ok(std::env::var(PASSPHRASE_VARIABLE).map_err(not_unicode)?.into())
}

fn prompt(question: &str) -> Result<SecretText, Failure> {
    let unasked = |what: String| {
        Failure::new(FailureKind::Local, what).try_to("run it in a terminal, or name a --passphrase-file")
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unasked("the key needs its passphrase, and there is no terminal to ask at".to_owned()));
    }
    let terminal = console::Term::stderr();
    let typed = terminal.write_str(question).and_then(|()| terminal.read_secure_line()).map(Zeroizing::new);
    let typed = typed.map_err(|error| unasked(format!("the passphrase could not be read: {error}")))?;
    Ok(typed.as_str().into())
}
