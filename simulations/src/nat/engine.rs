//! What a place of the lab is: a network namespace, or a container that was given no network but what the lab plugs in.
//!
//! A container's network namespace gets the container's name, so that whatever sets interfaces, routes and rules up does the
//! same for both.
//!
//! What it is not: the scenario, which knows of neither.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

/// Marks the containers of labs.
const LABEL: &str = "keyferry-lab";

/// Whether this process makes containers: only then does it look for some to remove.
static CONTAINERS: AtomicBool = AtomicBool::new(false);

/// What places are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Network namespaces, made by iproute2.
    Namespaces,
    /// Containers of a Docker engine.
    Docker {
        /// The image (see [`super::image`]).
        image: String,
        /// A folder that containers see under its own name.
        dir: PathBuf,
    },
}

impl Engine {
    /// Containers of `image`, in which `dir` is the same folder as here.
    pub(crate) fn docker(image: &str, dir: &Path) -> Self {
        CONTAINERS.store(true, Ordering::Relaxed);
        Self::Docker { image: image.to_owned(), dir: dir.to_owned() }
    }

    /// The shell function `add_place NAME`.
    pub(crate) fn prelude(&self) -> String {
        let body = match self {
            Self::Namespaces => "ip netns add \"$1\"".to_owned(),
            // Without a network, Docker switches IPv6 off.
            Self::Docker { image, dir } => format!(
                "docker run --detach --rm --name \"$1\" --hostname \"$1\" --label {LABEL} --network none --cap-add NET_ADMIN \
                 --sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.conf.default.disable_ipv6=0 \
                 --volume '{dir}:{dir}' '{image}' sleep infinity >/dev/null
  ip netns attach \"$1\" \"$(docker inspect --format '{{{{.State.Pid}}}}' \"$1\")\"",
                dir = dir.display()
            ),
        };
        format!("add_place() {{\n  {body}\n}}\n")
    }

    /// A command in the place of that name, with the variables `KEYFERRY_…` of its environment.
    pub(crate) fn command(&self, name: &str, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Namespaces => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
            Self::Docker { .. } => {
                let mut command = Command::new("docker");
                command.args(["exec", "--interactive"]);
                for variable in ["KEYFERRY_NO_MDNS", "KEYFERRY_BOOTSTRAP", "KEYFERRY_LOG"] {
                    command.args(["--env", variable]);
                }
                command.arg(name).arg(program);
                command
            }
        }
    }
}

/// Whether places of this process are containers.
pub(crate) fn makes_containers() -> bool {
    CONTAINERS.load(Ordering::Relaxed)
}

/// The names of all containers of labs, of any process.
pub(crate) fn containers() -> Vec<String> {
    if !makes_containers() {
        return Vec::new();
    }
    let listed = Command::new("docker")
        .args(["ps", "--all", "--format", "{{.Names}}", "--filter", &format!("label={LABEL}")])
        .stderr(Stdio::null())
        .output();
    let names = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

/// Removes containers, running or not.
pub(crate) fn remove_containers(names: &[String]) {
    if !names.is_empty() {
        let _ = Command::new("docker")
            .args(["rm", "--force"])
            .args(names)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_place_is_entered_as_it_was_made() {
        let docker = Engine::Docker { image: "lab:1".to_owned(), dir: "/tmp/x".into() };
        assert_eq!(words(&Engine::Namespaces.command("kf1-0-a", "true")), ["ip", "netns", "exec", "kf1-0-a", "true"]);
        let words = words(&docker.command("kf1-0-a", "true"));
        assert_eq!(words[..2], ["docker", "exec"]);
        assert_eq!(words[words.len() - 2..], ["kf1-0-a", "true"]);
    }

    #[test]
    fn containers_get_no_network_of_their_own() {
        let prelude = Engine::Docker { image: "lab:1".to_owned(), dir: "/tmp/x".into() }.prelude();
        assert!(prelude.contains("--network none") && prelude.contains("'{{.State.Pid}}'"), "{prelude}");
    }
}
