//! What a machine is to a program besides its disk: here, in which boot it is.
//!
//! A file of ours is mounted over the one in which the kernel says so, in a mount namespace that only this process and its children see.
//!
//! What it is not: another kernel.

use std::{
    env,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::StdRng};

use crate::network::Lacking;

/// Where Linux says in which boot it is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where a file system of FUSE is served.
const FUSE: &str = "/dev/fuse";
/// Set for a process that has a mount namespace of its own.
const OWN_MOUNTS: &str = "KEYFERRY_SIM_OWN_MOUNTS";

/// Goes on in a mount namespace of its own: then this process becomes another one of the same program. Nothing has been done before.
pub(super) fn own_mounts() -> Result<(), Lacking> {
    if env::var_os(OWN_MOUNTS).is_some() {
        return Ok(());
    }
    keyferry_needs::ensure(&["unshare", "mount", "umount"]).map_err(Lacking::new)?;
    if let Err(error) = OpenOptions::new().read(true).write(true).open(FUSE) {
        return Err(Lacking::new(format!("{FUSE} cannot be used ({error}); load the module fuse, or run it as root")));
    }
    let lacking = |what: &str| Lacking::new(format!("it makes a mount namespace; {what}"));
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    let is_allowed = |way: &&&[&str]| {
        let status = Command::new("unshare").args(**way).arg("true").stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(is_allowed).ok_or_else(|| lacking("run it as root, or allow user namespaces"))?;
    let this = env::current_exe().map_err(|error| lacking(&error.to_string()))?;
    let mut again = Command::new("unshare");
    again.args(*way).arg("--").arg(this).args(env::args_os().skip(1)).env(OWN_MOUNTS, "1");
    Err(lacking(&again.exec().to_string()))
}

/// A machine that can be started anew.
#[derive(Debug)]
pub(super) struct Machine {
    boot: PathBuf,
}

impl Machine {
    /// Has a file at `boot` say in which boot the machine is.
    pub(super) fn new(boot: &Path, random: &mut StdRng) -> Result<Self> {
        let machine = Self { boot: boot.to_owned() };
        machine.boot_anew(random)?;
        let mounted = Command::new("mount").arg("--bind").arg(boot).arg(BOOT_ID).status()?;
        ensure!(mounted.success(), "cannot mount a file over {BOOT_ID}");
        ensure!(fs::read(BOOT_ID)? == fs::read(boot)?, "{BOOT_ID} is not the one that was mounted");
        Ok(machine)
    }

    /// From now on it is in another boot.
    pub(super) fn boot_anew(&self, random: &mut StdRng) -> Result<()> {
        fs::write(&self.boot, format!("{:032x}\n", random.random::<u128>())).context("the boot id")
    }
}
