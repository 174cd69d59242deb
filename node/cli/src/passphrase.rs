//! Asking for a passphrase.
//!
//! What it is not: what it protects; see `keyferry::data_dir`.

use std::io::IsTerminal;

use keyferry::control::{Failure, FailureKind};

/// The environment variable that holds the passphrase, for where nobody can be asked.
pub const PASSPHRASE_VARIABLE: &str = "KEYFERRY_PASSPHRASE";

/// Gets the passphrase of a key that exists. Blocks while the user types.
///
/// # Errors
///
/// If it is neither in the environment nor is there a terminal to ask at.
pub fn ask() -> Result<String, Failure> {
    match from_environment()? {
        Some(passphrase) => Ok(passphrase),
        None => prompt("Passphrase of the key: "),
    }
}

/// Gets a passphrase for a new key, asking twice. Blocks while the user types.
///
/// # Errors
///
/// If it is neither in the environment nor is there a terminal to ask at, or the two differ.
pub fn ask_new() -> Result<String, Failure> {
    if let Some(passphrase) = from_environment()? {
        return Ok(passphrase);
    }
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

fn from_environment() -> Result<Option<String>, Failure> {
    match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(passphrase) => Ok(Some(passphrase).filter(|passphrase| !passphrase.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::new(FailureKind::Usage, format!("${PASSPHRASE_VARIABLE} is not Unicode")))
        }
    }
}

fn prompt(question: &str) -> Result<String, Failure> {
    let unasked = |what: String| {
        Failure::new(FailureKind::Local, what).try_to(format!("run it in a terminal, or set ${PASSPHRASE_VARIABLE}"))
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unasked("the key needs its passphrase, and there is no terminal to ask at".to_owned()));
    }
    let terminal = console::Term::stderr();
    terminal
        .write_str(question)
        .and_then(|()| terminal.read_secure_line())
        .map_err(|error| unasked(format!("the passphrase could not be read: {error}")))
}
