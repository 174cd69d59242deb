//! Proves that the lab is what it says: each site maps, filters and answers as its name has it, and routers count hops.
//!
//! What it is not: a test of Keyferry; only probes run here.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    probe::{Failed, Order, Probe, Said},
    scenario::{Cell, PUBLIC_PORT, Side, Site, line_of_public_node, line_of_site},
    world::{World, public_place},
};
use crate::network::{
    Engine, Filtering, Mapping, Refusal,
    core::{HOPS, Way},
    lan,
};

/// How long a probe waits for what should be answered at once, and for what should not be answered.
const WAIT: Duration = Duration::from_millis(700);

/// The port that the host under test connects from and listens on.
const HOST_PORT: u16 = 4600;

/// A port of a public host that is not the one that firewalls let out.
const OTHER_PORT: u16 = 8443;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// Where.
    pub(crate) site: String,
    /// What.
    pub(crate) what: &'static str,
    /// What should be seen.
    pub(crate) expected: String,
    /// What was seen.
    pub(crate) seen: String,
    /// Whether it is the same.
    pub(crate) ok: bool,
}

/// Looks at every site, and at two hosts behind one NAT.
pub(crate) fn run(dir: &Path) -> Result<Vec<Check>> {
    let world = World::build(Engine::Namespaces, Way::taking(Duration::ZERO), dir.join("self-test"))?;
    let mut bench = Bench {
        near: Probe::listening(&world, &public_place(0), &[PUBLIC_PORT, OTHER_PORT])?,
        far: Probe::listening(&world, &public_place(1), &[PUBLIC_PORT])?,
        checks: Vec::new(),
    };
    for site in Site::PAIRED {
        // The other side has to be something; it is not looked at.
        world.plug(Cell::Apart(site, Site::Public))?;
        bench.look_at(&world, site).with_context(|| format!("at {site}"))?;
        world.unplug();
    }
    for hairpin in [true, false] {
        let cell = Cell::OneNat { hairpin };
        world.plug(cell)?;
        bench.look_at_one_nat(&world, cell).with_context(|| format!("at {cell}"))?;
        world.unplug();
    }
    bench.look_at_routes()?;
    Ok(bench.checks)
}

struct Bench {
    /// A public host that the host under test connects to.
    near: Probe,
    /// Another one.
    far: Probe,
    checks: Vec<Check>,
}

impl Bench {
    fn look_at(&mut self, world: &World, site: Site) -> Result<()> {
        let mut host = Probe::listening(world, "a", &[HOST_PORT])?;
        let near = |port| public_addr(0, site, port);
        let first = seen(host.connect(HOST_PORT, near(PUBLIC_PORT), WAIT)?)?;
        let second = seen(host.connect(HOST_PORT, public_addr(1, site, PUBLIC_PORT), WAIT)?)?;
        let nat = site.properties();
        let keeps = nat.mapping == Mapping::EndpointIndependent;
        self.check(site, "maps independently of the endpoint", keeps, first == second);
        self.check(site, "is seen by its public address", public_ip(site), first.ip());
        let out = host.connect(0, near(OTHER_PORT), WAIT)?;
        let expected = if site == Site::Only443 { Verdict::Silence } else { Verdict::In };
        self.check(site, "lets connections to other ports out", expected, Verdict::of(&out));

        let admitted = self.near.connect(0, first, WAIT)?;
        self.check(site, "lets another port of a known address in", known_address(site), Verdict::of(&admitted));
        let mut third = Probe::start(world, &public_place(2))?;
        let unknown = third.connect(0, first, WAIT)?;
        self.check(site, "lets strangers in", strangers(site), Verdict::of(&unknown));
        if site == Site::PortMapping {
            let mapped = host.tell(&Order::MapPort(HOST_PORT))?;
            self.check(site, "maps a port by NAT-PMP", Said::Mapped(HOST_PORT), mapped.clone());
            let unknown = third.connect(0, first, WAIT)?;
            self.check(site, "lets strangers in by that port", Verdict::In, Verdict::of(&unknown));
        }
        self.look_at_hops(&mut host, site)
    }

    /// A packet has to die at each router of the core, and to pass with one hop more.
    fn look_at_hops(&mut self, host: &mut Probe, site: Site) -> Result<()> {
        let own = if site.is_public() { 0 } else { 1 + u32::from(site.properties().routers() == 2) };
        for (what, hops, expected) in [
            ("a connection dies at the first router of the core", own + 1, Verdict::Unreachable),
            ("a connection dies at the last router of the core", own + HOPS as u32, Verdict::Unreachable),
            ("a connection arrives with one hop more", own + HOPS as u32 + 1, Verdict::In),
        ] {
            let order = Order::Connect {
                from: 0,
                to: public_addr(1, site, PUBLIC_PORT),
                hops: Some(hops),
                wait_ms: WAIT.as_millis() as u64,
            };
            let said = host.tell(&order)?;
            self.check(site, what, expected, Verdict::of(&said));
        }
        Ok(())
    }

    fn look_at_one_nat(&mut self, world: &World, cell: Cell) -> Result<()> {
        let mut a = Probe::listening(world, "a", &[HOST_PORT])?;
        let mut b = Probe::listening(world, "b", &[HOST_PORT + 1])?;
        let to_a = SocketAddr::new(lan::host(0).into(), HOST_PORT);
        let inside = b.connect(0, to_a, WAIT)?;
        self.check(cell, "hosts reach each other inside", Verdict::In, Verdict::of(&inside));
        let outside_of_a = seen(a.connect(HOST_PORT, public_addr(0, Site::Public, PUBLIC_PORT), WAIT)?)?;
        let outside_of_b = seen(b.connect(HOST_PORT + 1, public_addr(0, Site::Public, PUBLIC_PORT), WAIT)?)?;
        let around = b.connect(HOST_PORT + 1, outside_of_a, WAIT)?;
        let expected = match cell {
            Cell::OneNat { hairpin: true } => Verdict::In,
            // The router takes it for itself, and knows no such port.
            _ => Verdict::Refused,
        };
        self.check(cell, "hosts reach each other by the public address", expected, Verdict::of(&around));
        if let Said::Seen(source) = around {
            self.check(cell, "with the public address as the source", outside_of_b, source);
        }
        Ok(())
    }

    /// What is nowhere is said to be nowhere.
    fn look_at_routes(&mut self) -> Result<()> {
        let nowhere = SocketAddr::from(([10, 9, 9, 9], 9));
        let said = self.near.connect(0, nowhere, WAIT)?;
        self.check("core", "answers for networks that nobody has", Verdict::Unreachable, Verdict::of(&said));
        let said = self.far.connect(0, public_addr(0, Site::V6Drop, OTHER_PORT), WAIT)?;
        self.check("core", "carries IPv6", Verdict::In, Verdict::of(&said));
        Ok(())
    }

    fn check<T: PartialEq + fmt::Debug>(&mut self, site: impl fmt::Display, what: &'static str, expected: T, seen: T) {
        self.checks.push(Check {
            site: site.to_string(),
            what,
            ok: expected == seen,
            expected: format!("{expected:?}"),
            seen: format!("{seen:?}"),
        });
    }
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    In,
    Refused,
    Silence,
    Unreachable,
    Prohibited,
    Other(String),
}

impl Verdict {
    fn of(said: &Said) -> Self {
        match said {
            Said::Seen(_) => Self::In,
            Said::Failed(Failed::Refused) => Self::Refused,
            Said::Failed(Failed::Silence) => Self::Silence,
            Said::Failed(Failed::Unreachable) => Self::Unreachable,
            Said::Failed(Failed::Prohibited) => Self::Prohibited,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

fn known_address(site: Site) -> Verdict {
    match site.properties().filtering {
        Filtering::AddressDependent | Filtering::EndpointIndependent => Verdict::In,
        Filtering::AddressAndPortDependent => strangers(site),
    }
}

fn strangers(site: Site) -> Verdict {
    let nat = site.properties();
    match site {
        Site::Public | Site::Public443 => Verdict::In,
        Site::V6Drop => Verdict::Silence,
        Site::V6Rst => Verdict::Refused,
        Site::V6Prohibited => Verdict::Prohibited,
        _ if nat.filtering == Filtering::EndpointIndependent => Verdict::In,
        _ if nat.refusal == Refusal::Reset => Verdict::Refused,
        _ => Verdict::Silence,
    }
}

fn public_ip(site: Site) -> IpAddr {
    let line = line_of_site(Side::A, site);
    if site.is_v6_only() { lan::host_v6(&line, 0).into() } else { line.v4.into() }
}

fn public_addr(index: usize, from: Site, port: u16) -> SocketAddr {
    let line = line_of_public_node(index);
    let ip: IpAddr = if from.has_v4() { line.v4.into() } else { line.v6.into() };
    SocketAddr::new(ip, port)
}

fn seen(said: Said) -> Result<SocketAddr> {
    match said {
        Said::Seen(addr) => Ok(addr),
        other => anyhow::bail!("a public host is not reached: {other:?}"),
    }
}

/// Prints what was looked at, and fails if something is not as it should be.
pub(crate) fn report(checks: &[Check], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::json!({ "checks": checks }));
    } else {
        for check in checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            println!("  {mark}  {:<16} {:<50} {}", check.site, check.what, check.seen);
            if !check.ok {
                println!("        expected {}", check.expected);
            }
        }
    }
    let wrong = checks.iter().filter(|check| !check.ok).count();
    ensure!(wrong == 0, "{wrong} of {} checks failed: the lab is not what it says", checks.len());
    Ok(())
}
