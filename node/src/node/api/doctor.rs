//! What `doctor` tells: the facts about this machine's place in the network, and what they amount to.
//!
//! What it is not: finding them out (`node::doctor`).

use std::net::{IpAddr, SocketAddr};

use keyferry_ice::Mapping;
use serde::{Deserialize, Serialize};

use super::TurnInfo;
use crate::base::clock::ClockSkew;

/// The result of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The interfaces that have addresses, loopback left out.
    pub interfaces: Vec<InterfaceInfo>,
    /// The addresses that the node listens on.
    pub listen: Vec<SocketAddr>,
    /// The way to the outside by IPv4.
    pub ipv4: FamilyInfo,
    /// The way to the outside by IPv6.
    pub ipv6: FamilyInfo,
    /// What the router does.
    pub port_mapping: PortMappingInfo,
    /// Whether this node reaches itself by its outer address, as a second node behind the same router would.
    pub hairpin: Finding,
    /// The STUN servers that were asked.
    pub stun: Vec<StunInfo>,
    /// The relays that this node may use, and which of them answer; none if it uses no relays (`--no-relay`).
    pub turn: Option<Vec<TurnInfo>>,
    /// Whether this system can send opening SYNs, which open routers that answer with RST.
    pub opening_syn: bool,
    /// How far this machine's clock is from those of peers; none if nobody has told.
    pub clock: Option<ClockSkew>,
    /// Peers in the routing table of the wide-area DHT.
    pub wan_peers: u64,
    /// Peers in the routing table of the local DHT.
    pub lan_peers: u64,
    /// What this amounts to.
    pub verdict: Verdict,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

/// The way to the outside by one address family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyInfo {
    /// Addresses of this machine that are good in the whole internet.
    pub own_public: Vec<IpAddr>,
    /// The addresses that hosts outside have seen, most seen first.
    pub seen: Vec<SeenAddr>,
    /// Addresses at which hosts outside got in when this node asked them to try.
    pub confirmed: Vec<SocketAddr>,
    /// Whether there is a NAT.
    pub nat: Finding,
    /// How it chooses outer ports (RFC 4787 §4.1).
    pub mapping: MappingInfo,
    /// Whom it lets in (RFC 4787 §5).
    pub filtering: FilteringInfo,
}

/// An address that hosts outside have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAddr {
    /// The address.
    pub addr: SocketAddr,
    /// How many hosts have seen it.
    pub seen_by: usize,
}

/// Yes, no, or honestly not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Yes.
    Yes,
    /// No.
    No,
    /// It could not be told.
    #[default]
    NotKnown,
}

/// How outer ports are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingInfo {
    /// One for all destinations.
    EndpointIndependent,
    /// Another one for each.
    EndpointDependent,
    /// Fewer than two hosts have told.
    #[default]
    Unknown,
}

impl From<Mapping> for MappingInfo {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::EndpointIndependent => Self::EndpointIndependent,
            Mapping::EndpointDependent => Self::EndpointDependent,
            Mapping::Unknown => Self::Unknown,
        }
    }
}

/// Whom a NAT or a firewall lets in, as far as the tests tell. There is no host that this node has never contacted, so
/// endpoint-independent and address-dependent filtering look the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilteringInfo {
    /// At least the hosts that this node has contacted, from any of their ports: address-dependent, or
    /// endpoint-independent.
    ContactedHosts,
    /// Only those that this node has contacted, and from that port: address- and port-dependent.
    ContactedPorts,
    /// Nobody has tried.
    #[default]
    NotKnown,
}

/// What the router does about ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMappingInfo {
    /// Whether it was asked.
    pub asked: bool,
    /// The protocols that it answers: `PCP`, `NAT-PMP`, `UPnP`.
    pub protocols: Vec<String>,
    /// The protocol by which a port is mapped.
    pub by: Option<String>,
    /// The outer address that leads to this node.
    pub external: Option<SocketAddr>,
    /// Why there is none, in words.
    pub reason: Option<String>,
}

/// What became of one STUN server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StunInfo {
    /// As the user named it, or the address of a peer.
    pub server: String,
    /// The address that it saw.
    pub mapped: Option<SocketAddr>,
    /// How long it took to connect and answer, in milliseconds.
    pub took_ms: Option<u64>,
    /// Why it has not answered, in words.
    pub reason: Option<String>,
}

/// What it all amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How others reach this node.
    pub reach: Reach,
    /// Why, as the second half of a sentence.
    pub because: String,
    /// What to do about it, one thing each.
    pub advice: Vec<String>,
}

/// How others reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// They connect.
    Direct,
    /// Both sides connect, with the help of a third.
    HolePunching,
    /// That works with some, and the others need a relay.
    HolePunchingWithSome,
    /// Only machines of the same network reach it.
    LocalOnly,
    /// It cannot be told.
    NotKnown,
}
