//! Where the `keyferry` binary under test is.
//!
//! `KEYFERRY_BIN` names it; otherwise it is `keyferry-under-test`, the same program, which cargo builds beside the tests
//! of this package before it runs them.
//!
//! What it is not: an installer; it never looks at `PATH`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The path of the binary under test.
pub fn keyferry() -> Result<PathBuf> {
    if let Some(path) = env::var_os("KEYFERRY_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("KEYFERRY_BIN is {path:?}"));
    }
    let binary = profile_dir()?.join("keyferry-under-test");
    ensure!(binary.is_file(), "cargo did not leave a binary at {}", binary.display());
    Ok(binary)
}

/// The folder of this profile in the target folder: a test executable lies in its `deps`.
fn profile_dir() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    match exe.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "debug" || name == "release")) {
        Some(dir) => Ok(dir.to_owned()),
        None => bail!("{} is in no target folder; set KEYFERRY_BIN", exe.display()),
    }
}
