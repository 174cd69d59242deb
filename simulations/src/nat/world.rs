//! Builds the scenario with network namespaces: the core, the public nodes' hosts, and the two sites of a cell.
//!
//! ```text
//!  p0 p1 p2  ── wan ──┐
//!  a ─ eth0  lan ─ ar ─ wan ──┐                      a host behind a home router
//!  b ─ eth0  lan ─ br ─ wan  lan ─ bc ─ wan ── core  a host behind two
//! ```
//!
//! What it is not: what runs in it. Public hosts stay for the life of a world; sites are plugged anew for each run, so that no
//! connection tracking, mapping or port of an earlier run is left.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    core::{Attachment, Core, Way},
    engine::Engine,
    namespaces::Namespaces,
    rules::{Filtering, Mapping, Nat, Refusal, firewall, miniupnpd_conf},
    scenario::{BACKBONE, Cell, Line, PUBLIC_NODES, PUBLIC_PORT, Side, Site, lan},
};

/// A core with public hosts, into which cells are plugged.
pub(crate) struct World {
    // Dropped in this order: what runs in namespaces ends before they go, and they before the core.
    daemons: Mutex<Vec<Child>>,
    namespaces: Namespaces,
    core: Core,
    way: Way,
    dir: PathBuf,
}

impl World {
    /// Builds the core and the hosts of the public nodes. Files of daemons go to `dir`.
    pub(crate) fn build(engine: Engine, way: Way, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        let world = Self {
            daemons: Mutex::default(),
            namespaces: Namespaces::new(engine),
            core: Core::start(way, BACKBONE)?,
            way,
            dir,
        };
        for index in 0..PUBLIC_NODES {
            world.add_public_host(&public_place(index), &Line::of_public_node(index))?;
        }
        Ok(world)
    }

    /// Plugs both sites of a cell in.
    pub(crate) fn plug(&self, cell: Cell) -> Result<()> {
        match cell {
            Cell::Apart(a, b) => {
                self.add_site(Side::A, a).with_context(|| format!("site {a}"))?;
                self.add_site(Side::B, b).with_context(|| format!("site {b}"))
            }
            Cell::OneNat { hairpin } => self.add_two_behind_one(hairpin).context("two hosts behind one NAT"),
        }
    }

    /// Removes both sites with all that runs in them.
    pub(crate) fn unplug(&self) {
        self.end_daemons();
        self.namespaces.remove(&["a", "ar", "ac", "b", "br", "bc"]);
    }

    /// A command in a place: `p0`… for public hosts, `a` and `b` for hosts, `ar`, `ac`… for their routers.
    pub(crate) fn command(&self, place: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespaces.command(place, program)
    }

    /// The core, for its counters.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// From one host to another and back.
    pub(crate) fn round_trip(&self) -> Duration {
        self.way.delay * 2
    }

    /// Where files of this world are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Adds a host that everybody reaches.
    pub(super) fn add_public_host(&self, place: &str, line: &Line) -> Result<()> {
        self.namespaces.script(&new_place(place))?;
        self.attach(place, line)?;
        self.namespaces.script(&wan_addrs(place, line, true, true))
    }

    fn add_site(&self, side: Side, site: Site) -> Result<()> {
        let (host, router, carrier) = places(side);
        let line = Line::of_site(side, site);
        if site.is_public() {
            return self.add_public_host(&host, &line);
        }
        if site.is_v6_only() {
            return self.add_v6_site(side, site, &line);
        }
        let mut script = new_place(&host) + &new_place(&router) + &forwarding(&router);
        script += &veth(&router, "lan", &host, "eth0");
        script += &addr(&router, "lan", format_args!("{}/24", lan::ROUTER));
        script += &addr(&host, "eth0", format_args!("{}/24", lan::host(false)));
        script += &default_route(&host, lan::ROUTER.into(), "eth0");
        script += &self.nft(&router, &home_of(site).rules())?;
        let outermost = if site.is_double() {
            script += &(new_place(&carrier) + &forwarding(&carrier));
            script += &veth(&carrier, "lan", &router, "wan");
            script += &addr(&carrier, "lan", format_args!("{}/24", lan::CARRIER));
            script += &addr(&router, "wan", format_args!("{}/24", lan::SUBSCRIBER));
            script += &default_route(&router, lan::CARRIER.into(), "wan");
            script += &self.nft(&carrier, &home_of(site).rules())?;
            &carrier
        } else {
            &router
        };
        self.namespaces.script(&script)?;
        self.attach(outermost, &line)?;
        self.namespaces.script(&wan_addrs(outermost, &line, true, false))?;
        if site == Site::PortMapping {
            self.start_miniupnpd(&router)?;
        }
        Ok(())
    }

    fn add_v6_site(&self, side: Side, site: Site, line: &Line) -> Result<()> {
        let (host, router, _) = places(side);
        let refusal = match site {
            Site::V6Rst => Refusal::Reset,
            Site::V6Prohibited => Refusal::Prohibited,
            _ => Refusal::Drop,
        };
        let (router_addr, host_addr) = lan::v6(side);
        let mut script = new_place(&host) + &new_place(&router) + &forwarding(&router);
        script += &veth(&router, "lan", &host, "eth0");
        script += &addr(&router, "lan", format_args!("{router_addr}/64 nodad"));
        script += &addr(&host, "eth0", format_args!("{host_addr}/64 nodad"));
        script += &default_route(&host, router_addr.into(), "eth0");
        script += &self.nft(&router, &firewall(refusal, false))?;
        self.namespaces.script(&script)?;
        self.attach(&router, line)?;
        self.namespaces.script(&wan_addrs(&router, line, false, true))
    }

    /// Two hosts in one network that the router itself carries: this kernel may have no bridge.
    fn add_two_behind_one(&self, hairpin: bool) -> Result<()> {
        let line = Line::of_site(Side::A, Site::PortDependent);
        let filtering = if hairpin { Filtering::EndpointIndependent } else { Filtering::AddressAndPortDependent };
        let nat = Nat { filtering, hairpin: hairpin.then_some(line.v4), ..Nat::HOME };
        let mut script = new_place("a") + &new_place("b") + &new_place("ar") + &forwarding("ar");
        for (host, inside, second) in [("a", "lan", false), ("b", "lan2", true)] {
            script += &veth("ar", inside, host, "eth0");
            script += &addr(host, "eth0", format_args!("{}/24", lan::host(second)));
            script += &default_route(host, lan::ROUTER.into(), "eth0");
        }
        script += &addr("ar", "lan", format_args!("{}/24", lan::ROUTER));
        let _ = writeln!(script, "ip -n @ar route add {} dev lan2 src {}", lan::host(true), lan::ROUTER);
        for inside in ["lan", "lan2"] {
            let _ = writeln!(
                script,
                "ip netns exec @ar sysctl -qw net.ipv4.conf.{inside}.proxy_arp=1 net.ipv4.neigh.{inside}.proxy_delay=0 net.ipv4.conf.{inside}.send_redirects=0"
            );
        }
        script += &self.nft("ar", &nat.rules())?;
        self.namespaces.script(&script)?;
        self.attach("ar", &line)?;
        self.namespaces.script(&wan_addrs("ar", &line, true, false))
    }

    fn attach(&self, place: &str, line: &Line) -> Result<()> {
        let device = self.namespaces.tun(place)?;
        if self.way.is_rough() {
            // Segments by the dozen in one packet would share one fate.
            self.namespaces.script(&format!("ip -n @{place} link set wan gso_max_segs 1\n"))?;
        }
        self.core.attach(Attachment { device, networks: line.networks(), edge: line.edge })
    }

    /// Writes rules to a file and gives the line of a script that loads them.
    fn nft(&self, place: &str, rules: &str) -> Result<String> {
        let file = self.dir.join(format!("{place}.nft"));
        fs::write(&file, rules)?;
        Ok(format!("ip netns exec @{place} nft -f '{}'\n", file.display()))
    }

    fn start_miniupnpd(&self, router: &str) -> Result<()> {
        let (settings, pid) =
            (self.dir.join(format!("{router}.upnp.conf")), self.dir.join(format!("{router}.upnp.pid")));
        fs::write(&settings, miniupnpd_conf())?;
        self.namespaces.script(&format!("ip -n @{router} route add 239.0.0.0/8 dev lan\n"))?;
        let log = fs::File::create(self.dir.join(format!("{router}.upnp.log")))?;
        let daemon = self
            .command(router, "miniupnpd")
            .arg("-d")
            .arg("-f")
            .arg(&settings)
            .arg("-P")
            .arg(&pid)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start miniupnpd (Debian: miniupnpd-nftables)")?;
        if let Ok(mut daemons) = self.daemons.lock() {
            daemons.push(daemon);
        }
        Ok(())
    }

    fn end_daemons(&self) {
        let Ok(mut daemons) = self.daemons.lock() else { return };
        for mut daemon in daemons.drain(..) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_daemons();
    }
}

/// The place of a public node.
pub(crate) fn public_place(index: usize) -> String {
    format!("p{index}")
}

/// The addresses that public nodes listen on.
pub(crate) fn public_addrs() -> Vec<SocketAddr> {
    let of = |line: Line| [SocketAddr::new(line.v4.into(), PUBLIC_PORT), SocketAddr::new(line.v6.into(), PUBLIC_PORT)];
    (0..PUBLIC_NODES).map(Line::of_public_node).flat_map(of).collect()
}

/// The NAT of a home, and of its carrier where there is one.
pub(crate) fn home_of(site: Site) -> Nat {
    let home = Nat::HOME;
    match site {
        Site::EndpointIndependent => Nat { filtering: Filtering::EndpointIndependent, ..home },
        Site::AddressDependent => Nat { filtering: Filtering::AddressDependent, ..home },
        Site::PortDependentRst | Site::CarrierGradeRst => Nat { refusal: Refusal::Reset, ..home },
        Site::Symmetric => Nat { mapping: Mapping::AddressAndPortDependent, ..home },
        Site::SymmetricRst => Nat { mapping: Mapping::AddressAndPortDependent, refusal: Refusal::Reset, ..home },
        Site::PortMapping => Nat { upnp: true, ..home },
        Site::Only443 => Nat { only_443: true, ..home },
        _ => home,
    }
}

fn places(side: Side) -> (String, String, String) {
    let letter = side.letter();
    (letter.to_string(), format!("{letter}r"), format!("{letter}c"))
}

fn new_place(place: &str) -> String {
    format!("add_place @{place}\nip -n @{place} link set lo up\n")
}

fn forwarding(place: &str) -> String {
    format!("ip netns exec @{place} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n")
}

fn veth(place: &str, device: &str, other: &str, other_device: &str) -> String {
    format!(
        "ip link add {device} netns @{place} type veth peer name {other_device} netns @{other}
ip -n @{place} link set {device} up
ip -n @{other} link set {other_device} up
"
    )
}

fn addr(place: &str, device: &str, addr: std::fmt::Arguments<'_>) -> String {
    format!("ip -n @{place} addr add {addr} dev {device}\n")
}

fn default_route(place: &str, gateway: IpAddr, device: &str) -> String {
    let family = if gateway.is_ipv4() { "-4" } else { "-6" };
    format!("ip -n @{place} {family} route add default via {gateway} dev {device}\n")
}

fn wan_addrs(place: &str, line: &Line, v4: bool, v6: bool) -> String {
    let mut script = String::new();
    if v4 {
        script += &addr(place, "wan", format_args!("{}/{}", line.v4, line.v4_prefix));
    }
    if v6 {
        script += &addr(place, "wan", format_args!("{}/64 nodad", line.v6));
    }
    let _ = writeln!(script, "ip -n @{place} link set wan up");
    if v4 {
        script += &default_route(place, line.edge.v4.into(), "wan");
    }
    if v6 {
        script += &default_route(place, line.edge.v6.into(), "wan");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_nodes_are_reached_by_both_families() {
        let addrs = public_addrs();
        assert_eq!(addrs.len(), 2 * PUBLIC_NODES);
        assert!(addrs.contains(&"192.0.2.18:443".parse().unwrap()), "{addrs:?}");
        assert!(addrs.contains(&"[2001:db8:10::2]:443".parse().unwrap()), "{addrs:?}");
    }
}
