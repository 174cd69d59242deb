//! What is generated from the definition of the command line: completions and man pages.
//!
//! What it is not: the definition itself (`args.rs`).

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::CommandFactory;

use super::args::Cli;

/// Writes the completions for a shell.
pub fn write_completions(shell: clap_complete::Shell, out: &mut dyn Write) -> io::Result<()> {
    // `generate` panics when it cannot write, as it does into a closed pipe; memory does not refuse.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyferry", &mut script);
    out.write_all(&script)
}

/// Writes the man page of the whole command.
pub fn write_man_page(out: &mut dyn Write) -> io::Result<()> {
    clap_mangen::Man::new(Cli::command()).render(out)
}

/// Writes the man pages of the command and of each of its subcommands into a folder, which is made if need be.
pub fn write_man_pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_name_every_command() {
        let mut script = Vec::new();
        write_completions(clap_complete::Shell::Bash, &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        for name in ["share", "unshare", "get", "ls", "node", "id", "store", "status"] {
            assert!(script.contains(name), "{name} is not completed");
        }
    }

    #[test]
    fn man_pages_are_written_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        write_man_pages(&dir.path().join("man1")).unwrap();
        for page in ["keyferry.1", "keyferry-share.1", "keyferry-get.1", "keyferry-store-verify.1"] {
            let text = fs::read_to_string(dir.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH"), "{page} is no man page");
        }
    }
}
