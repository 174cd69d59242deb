//! What a place of the lab is: a network namespace, or a container that was given no network but what the lab plugs in.
//!
//! A container's network namespace gets a name, so that whatever sets interfaces, routes and rules up does the same for all.
//!
//! What it is not: the scenario, which knows of neither.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

/// Marks the containers of labs.
const LABEL: &str = "keyferry-lab";

/// In the environment of a container's first process: which place it is.
const PLACE_VARIABLE: &str = "KEYFERRY_PLACE=";

/// Whether this process makes containers: only then does it look for some to remove.
static CONTAINERS: AtomicBool = AtomicBool::new(false);

/// What places are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Network namespaces, made by iproute2.
    Namespaces,
    /// Containers that others have started, for who runs in a container beside them and sees all processes of the machine: by the
    /// processes that tell in their environment which place they are.
    Beside {
        /// A process in each place.
        places: HashMap<String, u32>,
    },
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

    /// Places of containers whose environment has `KEYFERRY_PLACE=LAB/PLACE`. Those that have no container are plain namespaces.
    pub(crate) fn beside(lab: &str) -> Self {
        // Docker has it read-only, also where a container may change it.
        let _ = Command::new("mount").args(["-o", "remount,rw", "/proc/sys"]).stderr(Stdio::null()).status();
        let mut places = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let place = held_by(pid);
            if let Some(place) = place.as_deref().and_then(|place| place.strip_prefix(lab)?.strip_prefix('/')) {
                places.insert(place.to_owned(), pid);
            }
        }
        Self::Beside { places }
    }

    /// The shell function `add_place NAME`, where names begin with a prefix.
    pub(crate) fn prelude(&self, prefix: &str) -> String {
        let body = match self {
            Self::Namespaces => "ip netns add \"$1\"".to_owned(),
            Self::Beside { places } => {
                let attach = |(place, pid)| format!("'{prefix}{place}') ip netns attach \"$1\" {pid};; ");
                format!("case \"$1\" in {} *) ip netns add \"$1\";; esac", places.iter().map(attach).collect::<String>())
            }
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

    /// A command in a place of that full name, with the variables `KEYFERRY_…` of its environment.
    pub(crate) fn command(&self, name: &str, place: &str, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Beside { places } if places.contains_key(place) => {
                let mut command = Command::new("nsenter");
                command.arg("--target").arg(places[place].to_string());
                command.args(["--mount", "--uts", "--ipc", "--net", "--"]).arg(program);
                command
            }
            Self::Namespaces | Self::Beside { .. } => {
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

    /// Where this process sees the files of a place.
    pub(crate) fn root(&self, place: &str) -> PathBuf {
        match self {
            Self::Beside { places } if places.contains_key(place) => format!("/proc/{}/root", places[place]).into(),
            _ => "/".into(),
        }
    }
}

/// The place that a process holds open for others, as a container's first ones do: `LAB/PLACE`.
pub(crate) fn held_by(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    variables.find_map(|variable| Some(variable.strip_prefix(PLACE_VARIABLE)?.to_owned()))
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
        assert_eq!(
            words(&Engine::Namespaces.command("kf1-0-a", "a", "true")),
            ["ip", "netns", "exec", "kf1-0-a", "true"]
        );
        let words = words(&docker.command("kf1-0-a", "a", "true"));
        assert_eq!(words[..2], ["docker", "exec"]);
        assert_eq!(words[words.len() - 2..], ["kf1-0-a", "true"]);
    }

    #[test]
    fn a_place_is_found_by_what_its_process_tells() {
        let lab = format!("test-{}", std::process::id());
        let mut sleeping =
            Command::new("sleep").arg("60").env("KEYFERRY_PLACE", format!("{lab}/a.router")).spawn().unwrap();
        let (engine, other) = (Engine::beside(&lab), Engine::beside("test"));
        let held = held_by(sleeping.id());
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert_eq!(engine, Engine::Beside { places: HashMap::from([("a.router".to_owned(), sleeping.id())]) });
        assert_eq!(other, Engine::Beside { places: HashMap::new() });
        assert_eq!(held, Some(format!("{lab}/a.router")));
        assert_eq!(held_by(std::process::id()), None);
        let prelude = engine.prelude("kf1-0-");
        assert!(prelude.contains(&format!("'kf1-0-a.router') ip netns attach \"$1\" {}", sleeping.id())), "{prelude}");
        assert_eq!(self::words(&engine.command("kf1-0-a.router", "a.router", "nft"))[..2], ["nsenter", "--target"]);
        assert_eq!(self::words(&engine.command("kf1-0-b", "b", "nft"))[..2], ["ip", "netns"]);
    }

    #[test]
    fn containers_get_no_network_of_their_own() {
        let prelude = Engine::Docker { image: "lab:1".to_owned(), dir: "/tmp/x".into() }.prelude("kf1-0-");
        assert!(prelude.contains("--network none") && prelude.contains("'{{.State.Pid}}'"), "{prelude}");
    }
}
