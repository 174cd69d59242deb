//! The `keyferry` command, built as a binary of this package so that cargo has it ready before the tests that run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyferry_cli::main()
}
