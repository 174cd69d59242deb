//! A scenario in containers: a Compose file with one for each host and router and one for the lab, which plugs the others together and
//! runs the scenario in them. It lies in the folder of the run, and can be started by hand from there.
//!
//! What it is not: the network; containers get none from Docker.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};

use super::lab::public_name;
use crate::{
    network::{self, KEYFERRY_IN_IMAGE, Lacking, SIM_IN_IMAGE, routers},
    scenario::{
        folder::read_outcome,
        model::{Program, Scenario},
        outcome::Outcome,
    },
};

/// The name of the file.
const FILE: &str = "compose.yml";

/// The folder of the run, in all containers.
const FOLDER: &str = "/run/keyferry";

/// Where the image is named, for whoever does not use the usual one.
const IMAGE_VARIABLE: &str = "KEYFERRY_LAB_IMAGE";

/// The usual one: what `keyferry-sim lab-image` makes.
const USUAL_IMAGE: &str = "keyferry-lab";

/// How many hosts and routers have containers of their own. Where there are more, all share the lab's, one namespace each.
const MOST_CONTAINERS: usize = 32;

/// Begins the names of projects; the process follows.
const PROJECT: &str = "keyferry-run-";

/// Folders of this machine that programs come with which are not in the image.
const MACHINE: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];

/// The project that runs now, to be taken down when this process is ended.
static RUNNING: Mutex<Option<String>> = Mutex::new(None);

/// Fails if this machine cannot run containers.
pub(super) fn ensure_possible() -> Result<(), Lacking> {
    let answers = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !answers("docker", &["info"]) {
        return Err(Lacking::new(
            "there is no Docker engine here that this user may use (Debian: docker.io)".to_owned(),
        ));
    }
    if compose().is_none() {
        return Err(Lacking::new("there is no Compose for Docker (Debian: docker-compose)".to_owned()));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(Lacking::new("there is no /dev/net/tun; load the module tun".to_owned()));
    }
    Ok(())
}

/// Runs one choice of a scenario's values in containers, and gives what the lab wrote. Unless it is quiet, steps are told as they are done.
pub(super) fn run(scenario: &Scenario, choice: usize, image: &str, folder: &Path, is_quiet: bool) -> Result<Outcome> {
    let project = format!("{PROJECT}{}", std::process::id());
    fs::write(folder.join(FILE), file(scenario, choice, &project))?;
    *lock() = Some(project.clone());
    let done = Project { name: &project, image, folder }.run(is_quiet);
    down(&project);
    *lock() = None;
    done?;
    let outcome = read_outcome(folder).context("of the lab")?;
    Ok(Outcome { scenario: scenario.name.clone(), ..outcome })
}

/// Takes down what this process runs.
pub(super) fn end_own() {
    if let Some(project) = lock().take() {
        down(&project);
    }
}

/// Takes down what runs have left whose process is dead.
pub(super) fn sweep_dead() {
    let listed = Command::new("docker")
        .args(["ps", "--all", "--format", "{{.Label \"com.docker.compose.project\"}}"])
        .stderr(Stdio::null())
        .output();
    let Ok(listed) = listed else { return };
    let mut projects: Vec<String> = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
    projects.sort();
    projects.dedup();
    for project in projects {
        let owner = project.strip_prefix(PROJECT).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(network::is_dead) {
            down(&project);
        }
    }
}

struct Project<'a> {
    name: &'a str,
    image: &'a str,
    folder: &'a Path,
}

impl Project<'_> {
    fn run(&self, is_quiet: bool) -> Result<()> {
        let up = self.compose()?.args(["up", "--detach"]).output()?;
        ensure!(
            up.status.success(),
            "the containers cannot be started: {}",
            String::from_utf8_lossy(&up.stderr).trim()
        );
        let lab = self.lab()?;
        // By Docker and not by Compose, which has everything on standard output: how far the scenario is goes to standard error, and the
        // verdict to the other one, where this process says it.
        let mut following = Command::new("docker");
        following.args(["logs", "--follow", &lab]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut following = following.stderr(if is_quiet { Stdio::null() } else { Stdio::inherit() }).spawn()?;
        let waited = Command::new("docker").args(["wait", &lab]).output()?;
        let _ = following.kill();
        let _ = following.wait();
        let logs = Command::new("docker").args(["logs", &lab]).output()?;
        fs::write(self.folder.join("logs").join("lab.log"), [logs.stdout.clone(), logs.stderr.clone()].concat())?;
        match String::from_utf8_lossy(&waited.stdout).trim() {
            "0" | "1" => Ok(()),
            code => {
                let words = String::from_utf8_lossy(&logs.stderr).into_owned();
                bail!("the lab's container ended with {code}: {}", words.lines().last().unwrap_or_default())
            }
        }
    }

    fn lab(&self) -> Result<String> {
        let listed = self.compose()?.args(["ps", "--quiet", "lab"]).output()?;
        let id = String::from_utf8_lossy(&listed.stdout).trim().to_owned();
        ensure!(!id.is_empty(), "the lab's container is not there");
        Ok(id)
    }

    fn compose(&self) -> Result<Command> {
        let mut command = compose().context("there is no Compose for Docker")?;
        command.args(["--project-name", self.name, "--file"]).arg(self.folder.join(FILE));
        command.env(IMAGE_VARIABLE, self.image).stdin(Stdio::null());
        Ok(command)
    }
}

/// Compose, as a program of its own or as a part of Docker.
fn compose() -> Option<Command> {
    let own = || Command::new("docker-compose");
    let part = || {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    };
    let works = |command: &mut Command| {
        let status = command.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if works(&mut own()) { Some(own()) } else { works(&mut part()).then(part) }
}

/// Removes the containers of a project: without its file, which may be gone.
fn down(project: &str) {
    let filter = format!("label=com.docker.compose.project={project}");
    let Ok(listed) = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output() else {
        return;
    };
    let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        let _ = Command::new("docker")
            .args(["rm", "--force", "--volumes"])
            .args(ids)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<String>> {
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The Compose file, for Compose 1.29 and 2.
fn file(scenario: &Scenario, choice: usize, project: &str) -> String {
    let mut text = format!(
        "# The containers of {name}. To run it again by hand, from this folder:
#   keyferry-sim lab-image && docker-compose up --abort-on-container-exit
version: \"3.7\"
x-place: &place
  image: ${{{IMAGE_VARIABLE}:-{USUAL_IMAGE}}}
  init: true
  network_mode: none
  cap_add: [NET_ADMIN]
  sysctls: {{ net.ipv6.conf.all.disable_ipv6: 0, net.ipv6.conf.default.disable_ipv6: 0 }}
  volumes: [{volumes}]
  command: [sleep, infinity]
services:
",
        name = scenario.name,
        volumes = volumes(scenario).join(", "),
    );
    let places = places(scenario);
    for (place, tmpfs) in &places {
        text += &format!("  {place}:\n    <<: *place\n    environment: {{ KEYFERRY_PLACE: {project}/{place} }}\n");
        if let Some(tmpfs) = tmpfs {
            text += &format!("    tmpfs: [\"{tmpfs}\"]\n");
        }
    }
    let names: Vec<&str> = places.keys().map(String::as_str).collect();
    text + &format!(
        "  lab:
    image: ${{{IMAGE_VARIABLE}:-{USUAL_IMAGE}}}
    init: true
    network_mode: none
    # It plugs the others together, so it sees them all.
    pid: host
    cap_add: [NET_ADMIN, SYS_ADMIN, SYS_PTRACE]
    security_opt: [\"apparmor:unconfined\", \"seccomp:unconfined\"]
    devices: [/dev/net/tun]
    depends_on: [{depends}]
    volumes: [{volumes}, /sys/fs/cgroup:/sys/fs/cgroup:ro]
    environment: {{ KEYFERRY_BIN: {KEYFERRY_IN_IMAGE} }}
    command: [{SIM_IN_IMAGE}, run, {FOLDER}/scenario.toml, --engine, beside, --lab, {project}, --choice, \"{choice}\", --seed, \"{seed}\", --keep, {FOLDER}]
",
        depends = names.join(", "),
        volumes = volumes(scenario).join(", "),
        seed = scenario.seed,
    )
}

/// What all containers see of this machine: the folder of the run and, for programs that are not in the image, where those are.
fn volumes(scenario: &Scenario) -> Vec<String> {
    let mut volumes = vec![format!("\".:{FOLDER}\"")];
    let is_other = scenario.processes.iter().any(|process| matches!(process.command.program, Program::Other(_)));
    if is_other {
        volumes.extend(
            MACHINE
                .iter()
                .filter(|folder| Path::new(folder).exists())
                .map(|folder| format!("\"{folder}:{folder}:ro\"")),
        );
    }
    volumes
}

/// Hosts and routers, with a file system in memory for those whose disk has a size.
fn places(scenario: &Scenario) -> BTreeMap<String, Option<String>> {
    let mut places = BTreeMap::new();
    places.extend((0..scenario.rendezvous.nodes).map(|index| (public_name(index), None)));
    for site in &scenario.sites {
        places.extend(routers(&site.name, &site.properties).into_iter().map(|router| (router, None)));
    }
    for node in &scenario.nodes {
        let tmpfs = node.disk_bytes.map(|bytes| format!("{FOLDER}/homes/{}:size={bytes},mode=755", node.name));
        places.insert(node.name.clone(), tmpfs);
    }
    if places.len() > MOST_CONTAINERS { BTreeMap::new() } else { places }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::load::load;

    #[test]
    fn each_host_and_router_is_a_container_and_the_lab_is_beside_them() {
        let loaded = load("two-homes").unwrap();
        let text = file(&loaded.runs[0], 0, "keyferry-run-7");
        for place in ["public-1", "public-2", "public-3", "alice.router", "bob.router", "sharer", "getter"] {
            assert!(text.contains(&format!("  {place}:\n    <<: *place\n")), "{place} in {text}");
            assert!(text.contains(&format!("KEYFERRY_PLACE: keyferry-run-7/{place} ")), "{place} in {text}");
        }
        assert!(
            text.contains("depends_on: [alice.router, bob.router, getter, public-1, public-2, public-3, sharer]"),
            "{text}"
        );
        assert!(text.contains("pid: host") && text.contains("--engine, beside, --lab, keyferry-run-7"), "{text}");
        assert!(!text.contains("/usr:/usr"), "it has all that it needs: {text}");
    }

    #[test]
    fn many_hosts_share_the_container_of_the_lab() {
        let mut loaded = load("two-homes").unwrap();
        loaded.runs[0].rendezvous.nodes = MOST_CONTAINERS;
        let text = file(&loaded.runs[0], 0, "keyferry-run-7");
        assert!(!text.contains("<<: *place") && text.contains("depends_on: []"), "{text}");
    }
}
