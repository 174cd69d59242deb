//! A home and its router in network namespaces: the test's own namespace is the machine at home.
//!
//! ```text
//! home 192.168.1.2 ── lan 192.168.1.1 [router] wan 100.128.10.1 ── far 100.128.10.254, 192.0.2.1, 192.0.2.2
//! ```
//! Addresses are such as miniupnpd takes for public ones. What runs in the other namespaces are children of this process;
//! the namespaces go with them.
//!
//! What it is not: the NATs of all kinds, which `simulations` has.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::base::namespace;

/// How long anything in here may take, in seconds. The namespaces end after it by themselves.
const LIFETIME: &str = "90";

/// Runs the test of this name, with its modules, again in a namespace of its own, and returns whether this is that second run. Needs these
/// programs.
pub(crate) fn in_namespace(name: &str, programs: &[&str]) -> bool {
    namespace::in_namespace(name, programs, "exec \"$0\" \"$@\"")
}

/// Runs a shell script in this namespace.
pub(crate) fn sh(script: &str) {
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The router and the internet.
pub(crate) struct Lab {
    router: Child,
    internet: Child,
    daemons: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Builds it, with this rule of nftables for what goes out: `masquerade` keeps ports, `masquerade fully-random` takes a new one
    /// for each destination.
    pub(crate) fn new(masquerade: &str) -> Self {
        let lab =
            Self { router: namespace(), internet: namespace(), daemons: Vec::new(), dir: tempfile::tempdir().unwrap() };
        let (router, internet) = (lab.router.id(), lab.internet.id());
        sh(&format!("ip link add home type veth peer name lan netns {router}"));
        lab.in_router(&format!(
            "ip link add wan type veth peer name far netns {internet}; ip link set lo up
             ip addr add 192.168.1.1/24 dev lan; ip link set lan up
             ip addr add 100.128.10.1/24 dev wan; ip link set wan up
             ip route add 239.0.0.0/8 dev lan; ip route add default via 100.128.10.254
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ));
        inside(
            &lab.internet,
            "ip link set lo up; ip addr add 192.0.2.1/32 dev lo; ip addr add 192.0.2.2/32 dev lo
             ip addr add 100.128.10.254/24 dev far; ip link set far up",
        );
        sh("ip link set lo up; ip addr add 192.168.1.2/24 dev home; ip link set home up
            ip route add default via 192.168.1.1");
        let rules = lab.file("rules", &rules(masquerade));
        lab.in_router(&format!("nft -f {}", rules.display()));
        lab
    }

    /// Starts coturn on both addresses of the internet, port 3478, and waits until it answers.
    pub(crate) fn start_stun(&mut self) {
        let database = self.dir.path().join("turndb").display().to_string();
        let pid_file = self.dir.path().join("turn.pid").display().to_string();
        let arguments = [
            "--stun-only",
            "-n",
            "-L",
            "192.0.2.1",
            "-L",
            "192.0.2.2",
            "-p",
            "3478",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--log-file",
            "stdout",
            "--userdb",
            &database,
            "--pidfile",
            &pid_file,
        ];
        let daemon = in_namespace_of(&self.internet, "turnserver").args(arguments).spawn().unwrap();
        self.daemons.push(daemon);
        for addr in ["192.0.2.1", "192.0.2.2"] {
            wait_for(|| {
                let connect = format!("exec 3<>/dev/tcp/{addr}/3478");
                in_namespace_of(&self.internet, "bash").args(["-c", &connect]).status().unwrap().success()
            });
        }
    }

    /// Starts miniupnpd on the router.
    pub(crate) fn start_port_mapping(&mut self, pcp_and_nat_pmp: bool, upnp: bool) {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let settings = self.file(
            "upnp.conf",
            &format!(
                "ext_ifname=wan\nlistening_ip=lan\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\n\
                 system_uptime=yes\nuuid=00000000-0000-4000-8000-000000000001\nupnp_table_name=filter\n\
                 upnp_nat_table_name=filter\nupnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
                 upnp_nat_postrouting_chain=postrouting_miniupnpd\nallow 1024-65535 192.168.1.0/24 1024-65535\n\
                 deny 0-65535 0.0.0.0/0 0-65535\n",
                yes(pcp_and_nat_pmp),
                yes(upnp)
            ),
        );
        let daemon = in_namespace_of(&self.router, "miniupnpd")
            .arg("-d")
            .arg("-f")
            .arg(settings)
            .arg("-P")
            .arg(self.dir.path().join("upnp.pid"))
            .spawn()
            .unwrap();
        self.daemons.push(daemon);
        let udp_port = if pcp_and_nat_pmp { ":5351 " } else { ":1900 " };
        wait_for(|| self.in_router("ss -Huln").contains(udp_port));
    }

    /// Runs a shell script on the router, and returns what it prints.
    pub(crate) fn in_router(&self, script: &str) -> String {
        inside(&self.router, script)
    }

    /// Connects from the internet and sends the first bytes of a TLS connection.
    pub(crate) fn connect_from_internet(&self, addr: &str) -> bool {
        let (ip, port) = addr.rsplit_once(':').unwrap();
        let script = format!("exec 3<>/dev/tcp/{ip}/{port} && printf '\\x16\\x03\\x01\\x02' >&3 && sleep 1");
        in_namespace_of(&self.internet, "timeout").args(["5", "bash", "-c", &script]).status().unwrap().success()
    }

    /// The router's rules that lead a port to this machine.
    pub(crate) fn forwarded_ports(&self) -> String {
        self.in_router("nft list chain inet filter prerouting_miniupnpd | grep dnat || true")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let all = self.daemons.iter_mut().chain([&mut self.router, &mut self.internet]);
        for child in all {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The router's NAT, and the chains that miniupnpd writes to.
fn rules(masquerade: &str) -> String {
    format!(
        "table ip nat {{
  chain outward {{ type nat hook postrouting priority 110; oifname wan {masquerade}; }}
}}
table inet filter {{
  chain forward {{ type filter hook forward priority filter; jump miniupnpd; }}
  chain miniupnpd {{ }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }}
  chain prerouting_miniupnpd {{ }}
  chain postrouting_miniupnpd {{ }}
}}
"
    )
}

/// A new namespace, which lasts as long as the child.
fn namespace() -> Child {
    let child = Command::new("unshare").args(["-n", "sleep", LIFETIME]).spawn().unwrap();
    let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let own = link("self");
    wait_for(|| link(&child.id().to_string()).is_some_and(|other| Some(other) != own));
    child
}

fn in_namespace_of(child: &Child, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    let pid = child.id().to_string();
    command.args(["-t", &pid, "-n", program]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn inside(child: &Child, script: &str) -> String {
    let output = in_namespace_of(child, "sh")
        .args(["-e", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
