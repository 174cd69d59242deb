//! The command line: reads what was typed, has a node do it, and shows what comes of it.
//!
//! What it is not: the work itself (`engine`); it only speaks in its commands and events.

pub mod args;
pub mod drive;
pub mod interrupt;
pub mod launch;
pub mod logging;
pub mod pace;
pub mod pages;
pub mod passphrase;
pub mod pasted;
pub mod render;
pub mod run;
pub mod screen;
pub mod secrets;
pub mod standard_input;
pub mod text;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use self::{
    args::{Action, Cli},
    drive::Completion,
    launch::RealLauncher,
    render::RenderContext,
    run::Run,
    screen::{Bars, Screen, Style},
};
use keyferry::{
    AddressTarget,
    control::{Failure, FailureKind},
    data_dir::Home,
};

/// What shells show of a program that nobody reads from any more.
const ENDED_BY_SIGPIPE: u8 = 128 + 13;

/// Runs the program with the arguments of the process, and says how it should exit.
pub fn main() -> ExitCode {
    let cli = Cli::from_process().unwrap_or_else(|error| error.exit());
    let style = Style { json: cli.global.json, quiet: cli.global.quiet, terminal: io::stderr().is_terminal() };
    let bars = Bars::new(style);
    logging::start(cli.global.verbose, bars.clone());
    let mut screen = match &cli.action {
        Action::Get(get) if get.is_streamed() => Screen::beside_content(style, context(&cli.action), bars),
        _ => Screen::standard(style, context(&cli.action), bars),
    };
    match perform(cli, &mut screen) {
        Ok(Completion::Done) => ExitCode::SUCCESS,
        Ok(Completion::DamageFound) => ExitCode::from(FailureKind::Local.exit_code()),
        Ok(Completion::NobodyReads) => ExitCode::from(ENDED_BY_SIGPIPE),
        Err(failure) => {
            // If standard output is gone, the exit code still tells.
            let _ = screen.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn perform(cli: Cli, screen: &mut Screen) -> Result<Completion, Failure> {
    let written = match &cli.action {
        Action::Completions { shell } => pages::write_completions(*shell, &mut io::stdout()),
        Action::Man { dir: Some(dir) } => pages::write_man_pages(dir),
        Action::Man { dir: None } => pages::write_man_page(&mut io::stdout()),
        _ => return with_node(cli, screen),
    };
    match written {
        Ok(()) => Ok(Completion::Done),
        Err(error) => Err(Failure::new(FailureKind::Local, format!("cannot write it: {error}"))),
    }
}

fn with_node(mut cli: Cli, screen: &mut Screen) -> Result<Completion, Failure> {
    for notice in secrets::take_in(&mut cli.action)? {
        screen.notice(notice);
    }
    let passphrase_file = cli.global.passphrase_file;
    let home = data_folder(cli.global.home)?;
    let failed = |error: io::Error| Failure::new(FailureKind::Local, format!("cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let outcome = runtime.block_on(async {
        let cancel = interrupt::watch().map_err(failed)?;
        Run { launcher: &RealLauncher, home, passphrase_file, screen, cancel }.act(cli.action).await
    });
    // A thread that still asks for a passphrase must not keep us.
    runtime.shutdown_background();
    outcome
}

/// The data folder as an absolute path.
fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match given.filter(|path| !path.as_os_str().is_empty()) {
        None => Ok(Home::default_path()?),
        Some(path) => std::path::absolute(&path)
            .map_err(|error| Failure::new(FailureKind::Usage, format!("{}: {error}", path.display()))),
    }
}

fn context(action: &Action) -> RenderContext {
    // Who was started by `cargo run` shows how to do the same: there may be nothing in the path.
    let by_cargo = std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"));
    let program = if by_cargo { "cargo run --release --" } else { "keyferry" };
    let listed_node = match action {
        Action::Ls { node, .. } => {
            let address = pasted::address_in_words(std::slice::from_ref(node)).ok();
            let names_a_node = address.is_none_or(|address| !matches!(address.target(), AddressTarget::Name(_)));
            pasted::node(node).ok().filter(|_| names_a_node).map(|node| node.to_string())
        }
        _ => None,
    };
    RenderContext { program: program.to_owned(), listed_node, connected: Vec::new() }
}
