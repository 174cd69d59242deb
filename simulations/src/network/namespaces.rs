//! Places of this process, each with a network namespace: made by name, run in, and removed in every case.
//!
//! A name is `kf<process id>-<lab>-<place>`, so that what a process has left that died can be told from what is in use.
//!
//! What it is not: knowledge of NATs or addresses; it runs scripts of `ip` and `nft` that others write.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    io::Write,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{
    engine::{Engine, containers, held_by, makes_containers, remove_containers},
    image::remove_own as remove_own_images,
    process::is_dead,
};

/// Where iproute2 keeps the namespaces that have names.
const NAMED: &str = "/run/netns";

/// How long processes in a namespace have to end once they are killed.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Set for a process that has become root of a user namespace.
const UNSHARED: &str = "KEYFERRY_SIM_UNSHARED";

/// Labs that this process has made.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Devices that this process has made.
static DEVICES: AtomicU32 = AtomicU32::new(0);

/// The namespaces of one lab. They and all processes in them go when it is dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    prefix: String,
    engine: Engine,
}

/// What the machine or the user lacks for a lab, in one line.
#[derive(Debug)]
pub(crate) struct Lacking(String);

impl Lacking {
    /// What is lacking, and where it comes from.
    pub(crate) fn new(what: String) -> Self {
        Self(what)
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lab cannot start: {}", self.0)
    }
}

impl std::error::Error for Lacking {}

/// Goes on as root of a user namespace where this user is not root, if the machine allows that: then this process becomes another one
/// of the same program. Nothing has been done before.
pub(crate) fn become_root() -> Result<(), Lacking> {
    if is_root() || env::var_os(UNSHARED).is_some() {
        return Ok(());
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--net"]);
        command
    };
    let advice = "run it as root (sudo keyferry-sim …), or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1 or, on Ubuntu, \
                  kernel.apparmor_restrict_unprivileged_userns=0)";
    let lacking = || Lacking(format!("it makes network namespaces; {advice}"));
    let is_allowed = unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let this = env::current_exe().ok().filter(|_| is_allowed).ok_or_else(lacking)?;
    // Names of namespaces are files below /run.
    let mut again = unshare();
    again.args(["sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\""]).arg(this).args(env::args_os().skip(1));
    let error = again.env(UNSHARED, "1").exec();
    Err(Lacking(format!("it cannot go on in a user namespace: {error}; {advice}")))
}

/// Fails if this machine or this user cannot make the lab, which will start these programs besides those of all labs.
pub(crate) fn ensure_possible(programs: &[&str]) -> Result<(), Lacking> {
    if !is_root() {
        return Err(Lacking("it makes network namespaces; run it as root (sudo keyferry-sim …)".to_owned()));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(Lacking("there is no /dev/net/tun; load the module tun".to_owned()));
    }
    keyferry_needs::ensure(&[&["ip", "nft", "sysctl"], programs].concat()).map_err(Lacking)
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Removes what labs have left whose process is dead. Gives their number.
pub(crate) fn sweep_dead() -> usize {
    let dead = |name: &str| owner(name).is_some_and(is_dead);
    sweep(dead)
}

/// Removes all labs of this process, running or not.
pub(crate) fn sweep_own() -> usize {
    sweep(|name| owner(name) == Some(std::process::id()))
}

impl Namespaces {
    /// Begins a lab without any.
    pub(crate) fn new(engine: Engine) -> Self {
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("kf{}-{lab}-", std::process::id()), engine }
    }

    /// The full name of a place.
    pub(crate) fn name(&self, place: &str) -> String {
        format!("{}{place}", self.prefix)
    }

    /// Runs a script by `sh`, in which `@place` stands for the full name of a place, and `add_place @place` makes it.
    pub(crate) fn script(&self, text: &str) -> Result<()> {
        let text = self.engine.prelude(&self.prefix) + &text.replace('@', &self.prefix);
        let mut shell = Command::new("sh")
            .args(["-eu", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let mut input = shell.stdin.take().context("standard input was piped")?;
        input.write_all(text.as_bytes())?;
        drop(input);
        let output = shell.wait_with_output()?;
        if !output.status.success() {
            bail!("{} in:\n{text}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Whether the kernel has switches for namespaces.
    pub(crate) fn has_switches(&self) -> bool {
        let device = format!("kf{}b", std::process::id());
        let ip = |args: &[&str]| {
            Command::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        ip(&["link", "add", &device, "type", "bridge"]) && ip(&["link", "del", &device])
    }

    /// A command in a place.
    pub(crate) fn command(&self, place: &str, program: impl AsRef<OsStr>) -> Command {
        self.engine.command(&self.name(place), place, program)
    }

    /// Where this process sees the files of a place.
    pub(crate) fn root(&self, place: &str) -> PathBuf {
        self.engine.root(place)
    }

    /// A TUN device that is `wan` in a place; this process holds its other end.
    pub(crate) fn tun(&self, place: &str) -> Result<SyncDevice> {
        let name = format!("kf{}t{}", std::process::id(), DEVICES.fetch_add(1, Ordering::Relaxed));
        let device = DeviceBuilder::new()
            .name(&name)
            .enable(false)
            .offload(true)
            .build_sync()
            .with_context(|| format!("cannot make the TUN device {name}"))?;
        self.script(&format!("ip link set {name} netns @{place} name wan mtu 1500\n"))?;
        Ok(device)
    }

    /// Removes some places with all processes in them.
    pub(crate) fn remove(&self, places: &[&str]) {
        let names: Vec<String> = places.iter().map(|place| self.name(place)).collect();
        sweep(|name| names.iter().any(|own| own == name));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        sweep(|name| name.starts_with(&self.prefix));
    }
}

/// Has Ctrl-C and SIGTERM remove all namespaces, with what runs in them, and more, before this process ends.
pub(crate) fn end_tidily_on_signals(more: fn()) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("lab-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            eprintln!("keyferry-sim: stopping; removing the namespaces");
            more();
            sweep_own();
            if makes_containers() {
                remove_own_images();
            }
            process::exit(code);
        });
    })?;
    Ok(())
}

/// The process that has made a namespace, if it is one of a lab.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("kf")?.split_once('-')?.0.parse().ok()
}

fn sweep(chosen: impl Fn(&str) -> bool) -> usize {
    let Ok(entries) = fs::read_dir(NAMED) else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names: Vec<String> = names.filter(|name| chosen(name)).collect();
    for name in &names {
        kill_all_in(name);
    }
    for name in &names {
        let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
    }
    let containers: Vec<String> = containers().into_iter().filter(|name| chosen(name)).collect();
    remove_containers(&containers);
    names.len()
}

/// Kills the processes of a namespace that a lab has made, and waits until they are gone. A container that others have started is theirs to
/// end: where it ends first, Compose takes its end for that of the run, and stops the lab before that has told its verdict.
fn kill_all_in(name: &str) {
    let deadline = Instant::now() + KILL_GRACE;
    while Instant::now() < deadline {
        let Ok(output) = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() else {
            return;
        };
        let pids = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_ours = |pid: &&str| pid.parse().ok().and_then(held_by).is_none();
        let pids: Vec<&str> = pids.split_whitespace().filter(is_ours).collect();
        if pids.is_empty() {
            return;
        }
        let _ = Command::new("kill").arg("-KILL").args(&pids).stderr(Stdio::null()).status();
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_labs_have_an_owner() {
        assert_eq!(owner("kf123-0-a"), Some(123));
        for name in ["kf-0-a", "kf12", "web", "kfx1-0-a", ""] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn each_lab_has_names_of_its_own() {
        let (one, other) = (Namespaces::new(Engine::Namespaces), Namespaces::new(Engine::Namespaces));
        assert_ne!(one.name("a"), other.name("a"));
        assert_eq!(owner(&one.name("a")), Some(std::process::id()));
    }
}
