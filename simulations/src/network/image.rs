//! The image of the lab's containers, made of the project's own binary and a few tools of this machine, since there may be no
//! registry to pull one from.
//!
//! What it is not: an image to run Keyferry in for real.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::process::is_dead;
use crate::lab::keyferry_binary;

/// Where the binary is in the image.
pub(crate) const KEYFERRY: &str = "/keyferry/keyferry";

/// Where this program is in the image.
pub(crate) const KEYFERRY_SIM: &str = "/keyferry/keyferry-sim";

/// The library that shifts a program's clock (Debian: faketime): in the image if it is on this machine.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The name of the lab's images.
const REPOSITORY: &str = "keyferry-lab";

/// What scripts in containers use. The last is for the site whose router maps ports.
const TOOLS: &[&str] = &[
    "sh",
    "sleep",
    "ip",
    "nft",
    "sysctl",
    "nsenter",
    "mount",
    "ls",
    "cat",
    "kill",
    "cp",
    "dd",
    "rm",
    "umount",
    "conntrack",
    "ping",
    "cmp",
    "curl",
    "miniupnpd",
];

/// How many of them, from the first on, the lab itself cannot do without.
const NEEDED: usize = 7;

/// Where to look for tools.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What image to make.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Its name.
    #[arg(long, default_value = REPOSITORY)]
    name: String,
}

/// An image that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Image(String);

/// Makes the image that the compose file of the lab wants, and keeps it.
pub(crate) fn make(options: &Options) -> Result<()> {
    import(&keyferry_binary()?, &options.name)?;
    println!("made the image {}; `docker image rm {}` removes it", options.name, options.name);
    Ok(())
}

impl Image {
    /// Makes an image of this process.
    pub(crate) fn temporary(keyferry: &Path) -> Result<Self> {
        remove(dead());
        let name = temporary_name(std::process::id());
        import(keyferry, &name)?;
        Ok(Self(name))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(vec![self.0.clone()]);
    }
}

/// Removes the temporary image of this process, for an end without [`Drop`].
pub(crate) fn remove_own() {
    remove(vec![temporary_name(std::process::id())]);
}

fn temporary_name(pid: u32) -> String {
    format!("{REPOSITORY}:{pid}")
}

/// The temporary images of processes that are dead.
fn dead() -> Vec<String> {
    let listed = Command::new("docker").args(["image", "ls", REPOSITORY, "--format", "{{.Tag}}"]).output();
    let tags = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let pids = tags.split_whitespace().filter_map(|tag| tag.parse().ok());
    pids.filter(|pid| is_dead(*pid)).map(temporary_name).collect()
}

fn remove(names: Vec<String>) {
    if !names.is_empty() {
        let _ = Command::new("docker")
            .args(["image", "rm", "--force"])
            .args(names)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn import(keyferry: &Path, name: &str) -> Result<()> {
    let engine = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        engine.is_ok_and(|status| status.success()),
        "there is no Docker engine here: start it, or leave --engine docker out"
    );
    let dir = tempfile::Builder::new().prefix("keyferry-image-").tempdir()?;
    let root = dir.path();
    for folder in ["tmp", "run", "proc", "sys", "dev", "etc", "usr/bin", "keyferry", "root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/usr/bin/sh\n")?;
    let (this, inside) = (env::current_exe()?, |path: &str| root.join(path.trim_start_matches('/')));
    copy_with_libraries(keyferry, &inside(KEYFERRY), root)?;
    copy_with_libraries(&this, &inside(KEYFERRY_SIM), root)?;
    for &tool in TOOLS {
        match FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.is_file()) {
            Some(path) => copy_with_libraries(&path, &root.join("usr/bin").join(tool), root)?,
            None if !TOOLS[..NEEDED].contains(&tool) => {}
            None => bail!("the image needs `{tool}`, which is not here"),
        }
    }
    if Path::new(FAKETIME).is_file() {
        let to = inside(FAKETIME);
        fs::create_dir_all(to.parent().context("a library lies in a folder")?)?;
        copy_with_libraries(Path::new(FAKETIME), &to, root)?;
    }
    let mut tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let packed = tar.stdout.take().context("standard output was piped")?;
    let path = "ENV PATH=/keyferry:/usr/sbin:/usr/bin";
    let imported = Command::new("docker").args(["import", "--change", path, "-", name]).stdin(packed).output()?;
    ensure!(tar.wait()?.success(), "tar failed");
    ensure!(imported.status.success(), "docker import: {}", String::from_utf8_lossy(&imported.stderr).trim());
    Ok(())
}

/// Copies a program, and the shared libraries that `ldd` names to where the program looks for them.
fn copy_with_libraries(program: &Path, to: &Path, root: &Path) -> Result<()> {
    fs::copy(program, to).with_context(|| program.display().to_string())?;
    let listed = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
        let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
        if !inside.exists() {
            fs::create_dir_all(inside.parent().context("a library lies in a folder")?)?;
            fs::copy(&library, &inside).with_context(|| library.display().to_string())?;
        }
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries(listed: &str) -> BTreeSet<PathBuf> {
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_ldd_says() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found: Vec<_> = libraries(listed).into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
