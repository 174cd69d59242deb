//! A port of the router that leads to this node's port: asked for by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP-IGD,
//! renewed before it expires, and given back at the end.
//!
//! What it is not: proof that somebody gets through; the router may itself be behind a NAT.

#[cfg(feature = "port-mapping")]
mod lease;
#[cfg(feature = "port-mapping")]
mod mapped_port;
#[cfg(not(feature = "port-mapping"))]
#[path = "port_mapping/without_mapped_port.rs"]
mod mapped_port;
#[cfg(feature = "port-mapping")]
mod router;

use std::{fmt, net::SocketAddr};

pub(super) use self::mapped_port::MappedPort;

/// A protocol in which routers are asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingProtocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

/// Which protocols the router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RouterProtocols {
    /// Port Control Protocol.
    pub pcp: bool,
    /// NAT Port Mapping Protocol.
    pub nat_pmp: bool,
    /// UPnP Internet Gateway Device.
    pub upnp: bool,
}

/// What the router does for this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PortMapping {
    /// It is not to be asked.
    #[default]
    Off,
    /// It is being asked.
    Asking,
    /// There is none, or it answers no protocol.
    NoAnswer {
        /// Why, in words.
        reason: String,
    },
    /// It answers, but gives no port.
    Refused {
        /// What it answers.
        protocols: RouterProtocols,
        /// What it says, in words.
        reason: String,
    },
    /// It has mapped a port.
    Mapped {
        /// What it answers.
        protocols: RouterProtocols,
        /// By which protocol the port was mapped.
        by: MappingProtocol,
        /// The address to which the router sends what comes in.
        local: SocketAddr,
        /// The router's outer address.
        external: SocketAddr,
    },
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

impl RouterProtocols {
    /// Their names, best first.
    pub fn names(self) -> Vec<String> {
        let spoken = [
            (self.pcp, MappingProtocol::Pcp),
            (self.nat_pmp, MappingProtocol::NatPmp),
            (self.upnp, MappingProtocol::Upnp),
        ];
        spoken.iter().filter(|(is_spoken, _)| *is_spoken).map(|(_, protocol)| protocol.to_string()).collect()
    }
}
