//! Two hosts behind routers that answer unsolicited SYNs with RST, and a core between the routers: network namespaces for
//! tests, taken down with the value.
//!
//! ```text
//! A 192.168.1.10 ── router 198.51.100.2 ── core ── router 203.0.113.2 ── 192.168.1.10 B     IPv4: NAT on both sides
//! A 2001:db8:a::10 ─ router ────────────── core ────────────── router ─ 2001:db8:b::10 B    IPv6: stateful firewalls
//! ```
//! The NATs keep the port of a connection. The firewalls let nothing in that was not asked for, and say so by RST.
//!
//! What it is not: the matrix of all kinds of NAT; see `simulations`.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
    time::Duration,
};

use rustix::{fd::AsFd, thread::LinkNameSpaceType};

/// How long the core may take to answer.
const LAB_PATIENCE: Duration = Duration::from_secs(10);

const MEMBERS: [&str; 5] = ["a", "ra", "core", "rb", "b"];

/// A host of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    A,
    B,
}

impl Host {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its own addresses, IPv4 and IPv6.
    pub(crate) fn inner(self) -> [IpAddr; 2] {
        let v6 = match self {
            Self::A => Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10),
            Self::B => Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10),
        };
        [Ipv4Addr::new(192, 168, 1, 10).into(), v6.into()]
    }

    /// The addresses at which others see it.
    pub(crate) fn outer(self) -> [IpAddr; 2] {
        let v4 = match self {
            Self::A => Ipv4Addr::new(198, 51, 100, 2),
            Self::B => Ipv4Addr::new(203, 0, 113, 2),
        };
        [v4.into(), self.inner()[1]]
    }
}

/// The namespaces.
#[derive(Debug)]
pub(crate) struct NatLab {
    prefix: String,
}

impl NatLab {
    /// Builds the lab; `None`, with the test skipped, where namespaces cannot be made.
    pub(crate) fn build() -> Option<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        if keyferry_needs::lacks(&["ip", "nft", "sysctl"]) {
            return None;
        }
        if std::fs::metadata("/proc/self").map_or(true, |own| own.uid() != 0) {
            keyferry_needs::skip("root", "named network namespaces need root");
            return None;
        }
        let prefix = format!("kfp{}-{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { prefix };
        if !run(&["ip", "netns", "add", &lab.namespace("a")], "") {
            keyferry_needs::skip("namespaces", "this machine does not allow network namespaces");
            return None;
        }
        for member in &MEMBERS[1..] {
            lab.must(&["ip", "netns", "add", &lab.namespace(member)]);
        }
        lab.connect_all();
        for (router, inside) in [("ra", "2001:db8:a::/64"), ("rb", "2001:db8:b::/64")] {
            let rules = RULES.replace("INSIDE", inside);
            assert!(run(&["ip", "netns", "exec", &lab.namespace(router), "nft", "-f", "-"], &rules), "nft failed");
        }
        [Host::A, Host::B].into_iter().for_each(|host| lab.find_neighbours(host));
        Some(lab)
    }

    /// Lets a host and its router learn whom they send to: the first SYN of a test is not to wait for that.
    fn find_neighbours(&self, host: Host) {
        let core: [SocketAddr; 2] = match host {
            Host::A => ["198.51.100.1:9".parse().unwrap(), "[2001:db8:1::1]:9".parse().unwrap()],
            Host::B => ["203.0.113.1:9".parse().unwrap(), "[2001:db8:2::1]:9".parse().unwrap()],
        };
        let refused = self.on(host, move || async move {
            core.map(|addr| std::net::TcpStream::connect_timeout(&addr, LAB_PATIENCE).unwrap_err().kind())
        });
        assert_eq!(refused.join().unwrap(), [io::ErrorKind::ConnectionRefused; 2], "the lab is not connected");
    }

    /// Runs `work` on a thread of its own on that host, in a runtime of its own.
    pub(crate) fn on<T, F>(&self, host: Host, work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(host.name()))).unwrap();
        std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        })
    }

    fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }

    fn connect_all(&self) {
        for member in MEMBERS {
            self.inside(member, &["ip", "link", "set", "lo", "up"]);
            // Without duplicate address detection, IPv6 works at once.
            for setting in
                ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0"]
            {
                self.inside(member, &["sysctl", "-qw", setting]);
            }
        }
        let v4 = ["192.168.1.10/24", "192.168.1.1/24"];
        self.link(["a", "ra"], ["eth0", "lan"], v4, ["2001:db8:a::10/64", "2001:db8:a::1/64"]);
        self.link(["b", "rb"], ["eth0", "lan"], v4, ["2001:db8:b::10/64", "2001:db8:b::1/64"]);
        let (wan_a, wan_b) = (["198.51.100.2/24", "198.51.100.1/24"], ["203.0.113.2/24", "203.0.113.1/24"]);
        self.link(["ra", "core"], ["wan", "toa"], wan_a, ["2001:db8:1::2/64", "2001:db8:1::1/64"]);
        self.link(["rb", "core"], ["wan", "tob"], wan_b, ["2001:db8:2::2/64", "2001:db8:2::1/64"]);
        for (member, gateways) in [
            ("a", ["192.168.1.1", "2001:db8:a::1"]),
            ("b", ["192.168.1.1", "2001:db8:b::1"]),
            ("ra", ["198.51.100.1", "2001:db8:1::1"]),
            ("rb", ["203.0.113.1", "2001:db8:2::1"]),
        ] {
            for gateway in gateways {
                self.inside(member, &["ip", "route", "add", "default", "via", gateway]);
            }
        }
        for (inside, via) in [("2001:db8:a::/64", "2001:db8:1::2"), ("2001:db8:b::/64", "2001:db8:2::2")] {
            self.inside("core", &["ip", "route", "add", inside, "via", via]);
        }
    }

    fn link(&self, members: [&str; 2], devices: [&str; 2], v4: [&str; 2], v6: [&str; 2]) {
        let namespaces = members.map(|member| self.namespace(member));
        self.must(&[
            "ip",
            "link",
            "add",
            devices[0],
            "netns",
            &namespaces[0],
            "type",
            "veth",
            "peer",
            "name",
            devices[1],
            "netns",
            &namespaces[1],
        ]);
        for end in [0, 1] {
            self.inside(members[end], &["ip", "addr", "add", v4[end], "dev", devices[end]]);
            self.inside(members[end], &["ip", "addr", "add", v6[end], "dev", devices[end], "nodad"]);
            self.inside(members[end], &["ip", "link", "set", devices[end], "up"]);
        }
    }

    fn inside(&self, member: &str, command: &[&str]) {
        self.must(&[&["ip", "netns", "exec", &self.namespace(member)], command].concat());
    }

    fn must(&self, command: &[&str]) {
        assert!(run(command, ""), "{command:?} failed");
    }
}

/// A NAT that keeps ports, and a firewall that answers with RST what was not asked for.
const RULES: &str = "
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname wan masquerade; }
  chain through { type filter hook forward priority 0;
    iifname wan ct state established,related accept
    iifname wan drop
  }
}
table ip6 firewall {
  chain through { type filter hook forward priority 0;
    iifname wan ct state established,related accept
    iifname wan ip6 daddr INSIDE meta l4proto tcp reject with tcp reset
    iifname wan drop
  }
}
";

fn run(command: &[&str], input: &str) -> bool {
    let mut builder = Command::new(command[0]);
    let spawned = builder.args(&command[1..]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else { return false };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        println!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

impl Drop for NatLab {
    fn drop(&mut self) {
        for member in MEMBERS {
            let _ = run(&["ip", "netns", "del", &self.namespace(member)], "");
        }
    }
}
