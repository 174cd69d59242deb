//! What tests and labs need of a machine besides Rust, and how they say what it lacks, so that nothing is skipped unseen.
//!
//! A test that cannot run here calls [`skip`] and returns. That prints one line on standard error, and adds it to the file that `KEYFERRY_SKIPPED` names,
//! which `tests/run` lists at its end:
//!
//! ```text
//! skipped <tab> need <tab> test <tab> reason
//! ```
//! With `KEYFERRY_REQUIRE_ALL=1` the test fails instead, unless `KEYFERRY_ALLOW_SKIP` has the need among its words, with commas between.
//! A need is the name of a Debian package, or one of `docker`, `ipv6`, `namespaces` and `root`.
//!
//! What it is not: an installer; `tests/run` is, by the same list (`debian.txt`).

use std::{
    env,
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write},
    net::{Ipv6Addr, TcpListener},
    path::PathBuf,
    thread,
};

const REQUIRE_ALL: &str = "KEYFERRY_REQUIRE_ALL";
const ALLOW_SKIP: &str = "KEYFERRY_ALLOW_SKIP";
const SKIPPED: &str = "KEYFERRY_SKIPPED";

/// Debian packages, and the programs that each is there for.
const DEBIAN: &str = include_str!("../debian.txt");

/// Says that the running test lacks something, and why.
///
/// # Panics
///
/// Where skipping is a failure.
#[track_caller]
pub fn skip(need: &str, reason: &str) {
    let test = test_name();
    let allowed = env::var(ALLOW_SKIP).unwrap_or_default();
    if env::var(REQUIRE_ALL).is_ok_and(|value| value == "1") && !allowed.split(',').any(|word| word == need) {
        panic!(
            "{test} cannot run here, and {REQUIRE_ALL} is set: {reason} ({ALLOW_SKIP}={need} would let it be skipped)"
        );
    }
    let line = format!("skipped\t{need}\t{test}\t{}\n", reason.replace(['\n', '\t'], " "));
    eprint!("{line}");
    if let Some(path) = env::var_os(SKIPPED)
        && let Err(error) = append(path, &line)
    {
        panic!("cannot add to the list of skipped tests: {error}");
    }
}

/// Whether one of these programs is missing; then the running test is skipped.
///
/// # Panics
///
/// Where skipping is a failure, and if `debian.txt` has no package for one of the programs.
#[track_caller]
pub fn lacks(programs: &[&str]) -> bool {
    let missing = missing(programs);
    if let Some(first) = missing.first() {
        skip(first.package, &sentence(&missing));
    }
    !missing.is_empty()
}

/// Whether loopback has no IPv6; then the running test is skipped.
///
/// # Panics
///
/// Where skipping is a failure.
#[track_caller]
pub fn lacks_ipv6() -> bool {
    let lacks = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err();
    if lacks {
        skip("ipv6", "this machine has no ::1");
    }
    lacks
}

/// Makes sure, before a lab starts, that these programs are there.
///
/// # Errors
///
/// One line that names those that are missing, with their packages.
pub fn ensure(programs: &[&str]) -> Result<(), String> {
    let missing = missing(programs);
    if missing.is_empty() { Ok(()) } else { Err(sentence(&missing)) }
}

/// Whether a program, by its name or path, is on this machine.
pub fn is_here(program: &str) -> bool {
    if program.contains('/') {
        return PathBuf::from(program).is_file();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// A program that is not here, and the Debian package that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Missing {
    program: String,
    package: &'static str,
}

/// Those of the programs that are neither in `PATH` nor where Debian has root's.
fn missing(programs: &[&str]) -> Vec<Missing> {
    let missing = programs.iter().filter(|program| !is_here(program));
    missing.map(|program| Missing { program: (*program).to_owned(), package: package(program) }).collect()
}

/// What is missing, and where it comes from, in one line: "there is no turnserver (Debian: coturn)".
fn sentence(missing: &[Missing]) -> String {
    let each: Vec<String> =
        missing.iter().map(|Missing { program, package }| format!("{program} (Debian: {package})")).collect();
    format!("there is no {}", each.join(" and no "))
}

fn package(program: &str) -> &'static str {
    let lines = DEBIAN.lines().filter(|line| !line.starts_with('#'));
    let mut words = lines.map(|line| line.split_whitespace());
    let found = words.find_map(|mut words| {
        let package = words.next()?;
        words.any(|word| word == program).then_some(package)
    });
    found.unwrap_or_else(|| panic!("tests/needs/debian.txt has no package for {program}"))
}

/// As the test runner has it; without one, the thread of a test has its name. A lab is called by its command.
fn test_name() -> String {
    let thread = thread::current();
    match (env::var("NEXTEST_TEST_NAME"), thread.name()) {
        (Ok(name), _) => name,
        (Err(_), Some("main") | None) => env::args().take(2).collect::<Vec<_>>().join(" "),
        (Err(_), Some(name)) => name.to_owned(),
    }
}

fn append(path: OsString, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const INSIDE: &str = "KEYFERRY_NEEDS_FERRIES";

    /// What the others run in a process of its own, since variables belong to processes.
    #[test]
    fn needs_ferries() {
        if env::var_os(INSIDE).is_some() {
            skip("ferries", "there is no\nferry");
        }
    }

    fn run(variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "tests::needs_ferries", "--nocapture"]).env(INSIDE, "1");
        for variable in [REQUIRE_ALL, ALLOW_SKIP, SKIPPED, "NEXTEST_TEST_NAME"] {
            command.env_remove(variable);
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    const LINE: &str = "skipped\tferries\ttests::needs_ferries\tthere is no ferry\n";

    #[test]
    fn a_skipped_test_says_so_and_passes() {
        let (passed, text) = run(&[]);
        assert!(passed && text.contains(LINE), "{text}");
    }

    #[test]
    fn a_skipped_test_fails_where_all_are_required() {
        let (passed, text) = run(&[(REQUIRE_ALL, "1"), (ALLOW_SKIP, "docker,ferry")]);
        assert!(!passed && text.contains("there is no\nferry"), "{text}");
    }

    #[test]
    fn a_need_that_is_excepted_may_be_lacking() {
        let (passed, text) = run(&[(REQUIRE_ALL, "1"), (ALLOW_SKIP, "docker,ferries")]);
        assert!(passed && text.contains(LINE), "{text}");
    }

    #[test]
    fn skipped_tests_are_added_to_the_list() {
        let list = env::temp_dir().join(format!("keyferry-needs-{}", std::process::id()));
        let path = list.to_str().unwrap();
        assert!(run(&[(SKIPPED, path)]).0 && run(&[(SKIPPED, path)]).0);
        let listed = std::fs::read_to_string(&list).unwrap();
        std::fs::remove_file(&list).unwrap();
        assert_eq!(listed, LINE.repeat(2));
    }

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        assert_eq!(missing(&["cc"]), []);
        let missing = [("turnserver", "coturn"), ("nft", "nftables")]
            .map(|(program, package)| Missing { program: program.to_owned(), package });
        assert_eq!(package("miniupnpd"), "miniupnpd-nftables");
        assert_eq!(sentence(&missing), "there is no turnserver (Debian: coturn) and no nft (Debian: nftables)");
    }
}
