//! Benchmarks and simulations of Keyferry: real processes on this machine, figures as a table or as JSON.
//!
//! What it is not: a test of correctness for every change; those are in the `keyferry-tests` package.

mod content;
mod end_to_end;
mod folder_changes;
mod hellos;
mod kill;
mod kill_commands;
mod lab;
mod measure;
mod nat;
mod network;
mod plain;
mod power_cuts;
mod relay;
mod scenario;
mod small_files;
mod stranger;
mod throughput;
mod ttfb;
mod update;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Keyferry on this machine, over loopback. Everything is bounded and cleaned up.
#[derive(Debug, Parser)]
#[command(name = "keyferry-sim", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON object on standard output instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Compares `keyferry get` with a plain TCP copy of the same file, and many small files with `cp -r` and tar.
    Throughput(throughput::Options),
    /// Measures the time from `get` to the first verified byte: over a known node, and through a DHT.
    Ttfb(ttfb::Options),
    /// Measures what a newer version of a folder costs whoever has the one before, beside rsync.
    Update(update::Options),
    /// Kills the getter or the sharer at random points and checks what is kept.
    Kill(kill::Options),
    /// Kills commands that change the data folder at random points, and checks that what they told is so.
    KillCommands(kill_commands::Options),
    /// Cuts the power while commands change the data folder, and checks that what they told is so (Linux).
    PowerCuts(power_cuts::Options),
    /// Measures what strangers cost a node with very many roots who guess what is there.
    Hellos(hellos::Options),
    /// Moves a real tree and a big file between three nodes and compares every bit.
    EndToEnd(end_to_end::Options),
    /// Compares the relay of a node with a plain TCP proxy and with coturn, and runs many connections at once.
    Relay(relay::Options),
    /// Runs real nodes behind every two kinds of NAT and firewall, in network namespaces (Linux, root).
    NatMatrix(nat::Options),
    /// Runs a scenario: many nodes, what happens to them, and whether all is as expected (Linux).
    Run(scenario::RunOptions),
    /// Says whether files of scenarios hold together, and if not, what is wrong, and where.
    Check(scenario::CheckOptions),
    /// Lists the scenarios that come with the program, each with its question.
    Scenarios,
    /// Writes a scenario to begin with.
    New(scenario::NewOptions),
    /// Sets the results of two runs of scenarios side by side.
    Compare(scenario::compare::Options),
    /// Writes the page of a result again, as this version draws it.
    Report(scenario::report::Options),
    /// Makes the Docker image that simulations/compose/nat.yml wants, of the binary beside this one.
    LabImage(network::ImageOptions),
    /// Listens and connects as it is told by `nat-matrix --self-test`.
    #[command(hide = true)]
    NatProbe,
    /// Serves a file, zeros or a tar stream over plain TCP (used by the others).
    #[command(hide = true)]
    PlainServe(plain::ServerOptions),
    /// Fetches what `plain-serve` serves (used by the others).
    #[command(hide = true)]
    PlainFetch(plain::FetchOptions),
    /// Bothers a node as strangers do (used by the scenario `strangers`).
    #[command(hide = true)]
    Stranger(stranger::Options),
    /// Fetches what `plain-serve` serves through a relay (used by `relay`).
    #[command(hide = true)]
    RelayClient(relay::client::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.action {
        Action::Throughput(options) => throughput::run(&options, cli.json),
        Action::Ttfb(options) => ttfb::run(&options, cli.json),
        Action::Update(options) => update::run(&options, cli.json),
        Action::Kill(options) => kill::run(&options, cli.json),
        Action::KillCommands(options) => kill_commands::run(&options, cli.json),
        Action::PowerCuts(options) => power_cuts::run(&options, cli.json),
        Action::EndToEnd(options) => end_to_end::run(&options, cli.json),
        Action::Hellos(options) => hellos::run(&options, cli.json),
        Action::Relay(options) => relay::run(&options, cli.json),
        Action::NatMatrix(options) => nat::run(&options, cli.json),
        Action::Run(options) => match scenario::run(&options, cli.json) {
            Ok(true) => Ok(()),
            // What did not hold has been told.
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Action::Check(options) => scenario::check(&options, cli.json),
        Action::Scenarios => scenario::list(cli.json),
        Action::New(options) => scenario::new(&options),
        Action::LabImage(options) => network::make_image(&options),
        Action::Compare(options) => scenario::compare::run(&options, cli.json),
        Action::Report(options) => scenario::report::run(&options, cli.json),
        Action::NatProbe => nat::run_probe(),
        Action::PlainServe(options) => plain::serve(&options),
        Action::PlainFetch(options) => plain::fetch(&options),
        Action::Stranger(options) => stranger::run(&options),
        Action::RelayClient(options) => relay::client::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What is wrong with a file has lines of its own.
            match error.downcast_ref::<scenario::Refused>() {
                Some(refused) => eprintln!("{refused}"),
                None => eprintln!("keyferry-sim: {error:#}"),
            }
            // What could not start is told from what went wrong.
            let cannot_start = error.is::<network::Lacking>()
                || error.is::<scenario::Refused>()
                || error.is::<scenario::FolderError>();
            if cannot_start { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use keyferry_tests::documentation::documented_commands;

    use super::*;

    #[test]
    fn every_command_that_the_documentation_shows_is_understood() {
        let shown = documented_commands("keyferry-sim");
        assert!(shown.len() >= 10, "{shown:?}");
        for command in shown {
            let words = ["keyferry-sim".to_owned()].into_iter().chain(command.arguments.clone());
            match Cli::try_parse_from(words) {
                Ok(_) => {}
                Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {}
                Err(error) => panic!("{}: {}\n{error}", command.place, command.arguments.join(" ")),
            }
        }
    }
}
