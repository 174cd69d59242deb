//! The scenario as a network: the public nodes' hosts, and the two sites of a cell.
//!
//! What it is not: what runs in it. Public hosts stay for the life of a world; sites are plugged anew for each run, so that no
//! connection tracking, mapping or port of an earlier run is left.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::scenario::{Cell, PUBLIC_NODES, PUBLIC_PORT, Side, Site, line_of_public_node, line_of_site};
use crate::network::{
    Engine, Filtering, Line, Network, Properties,
    core::{Core, Way},
};

/// A core with public hosts, into which cells are plugged.
pub(crate) struct World {
    network: Network,
    way: Way,
}

impl World {
    /// Builds the core and the hosts of the public nodes. Files of daemons go to `dir`.
    pub(crate) fn build(engine: Engine, way: Way, dir: PathBuf) -> Result<Self> {
        let world = Self { network: Network::start(engine, way, way.is_rough(), dir)?, way };
        for index in 0..PUBLIC_NODES {
            world.add_public_host(&public_place(index), line_of_public_node(index))?;
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
        let both = [Side::A.name(), Side::B.name()];
        self.network.remove(&both, &both);
    }

    /// A command in a place: `p0`… for public hosts, `a` and `b` for hosts, `a.router`, `a.carrier`… for their routers.
    pub(crate) fn command(&self, place: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.network.command(place, program)
    }

    /// The core, for its counters.
    pub(crate) fn core(&self) -> &Core {
        self.network.core()
    }

    /// From one host to another and back.
    pub(crate) fn round_trip(&self) -> Duration {
        self.way.delay * 2
    }

    /// Where files of this world are.
    pub(crate) fn dir(&self) -> &Path {
        self.network.dir()
    }

    /// Adds a host that everybody reaches.
    pub(super) fn add_public_host(&self, place: &str, line: Line) -> Result<()> {
        self.network.add_site(place, &Properties::public(), line)?;
        self.network.plug(place, place)
    }

    fn add_site(&self, side: Side, site: Site) -> Result<()> {
        self.network.add_site(side.name(), &site.properties(), line_of_site(side, site))?;
        self.network.plug(side.name(), side.name())
    }

    fn add_two_behind_one(&self, hairpin: bool) -> Result<()> {
        let filtering = if hairpin { Filtering::EndpointIndependent } else { Filtering::AddressAndPortDependent };
        let properties = Properties { filtering, hairpin, ..Properties::home() };
        self.network.add_site("a", &properties, line_of_site(Side::A, Site::PortDependent))?;
        self.network.plug("a", "a")?;
        self.network.plug("b", "a")
    }
}

/// The place of a public node.
pub(crate) fn public_place(index: usize) -> String {
    format!("p{index}")
}

/// The addresses that public nodes listen on.
pub(crate) fn public_addrs() -> Vec<SocketAddr> {
    let of = |line: Line| [SocketAddr::new(line.v4.into(), PUBLIC_PORT), SocketAddr::new(line.v6.into(), PUBLIC_PORT)];
    (0..PUBLIC_NODES).map(line_of_public_node).flat_map(of).collect()
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
