//! Which node is meant, and hints of where it is.
//!
//! What it is not: what that node shares (`keyferry_proto::address::Address`).

use std::{fmt, str::FromStr};

use keyferry_proto::{
    address::{Address, AddressError},
    identity::NodeKey,
};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

/// A node, and hints of where to look first: a node key, or an address `keyferry:NODE[/…][?via=…]` with one in it. To serde
/// it is its text form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeAddress {
    /// The node.
    pub node: NodeKey,
    /// Where to look first.
    pub hints: Vec<Multiaddr>,
}

/// Why a text names no node. The fault is the user's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeAddressError {
    /// It is neither a node key nor an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It is the address of content alone.
    #[error("the address names content, but no node")]
    NoNode,
}

impl From<NodeKey> for NodeAddress {
    fn from(node: NodeKey) -> Self {
        Self { node, hints: Vec::new() }
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        if let Ok(node) = text.parse::<NodeKey>() {
            return Ok(node.into());
        }
        let address: Address = text.parse()?;
        let node = address.node().ok_or(NodeAddressError::NoNode)?;
        Ok(Self { node, hints: address.hints().to_vec() })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Address::catalogue(self.node).with_hints(self.hints.clone()) {
            Ok(address) if !self.hints.is_empty() => write!(f, "{address}"),
            // Hints without a text form help nobody who reads this.
            Ok(_) | Err(_) => write!(f, "{}", self.node),
        }
    }
}

impl TryFrom<String> for NodeAddress {
    type Error = NodeAddressError;

    fn try_from(text: String) -> Result<Self, NodeAddressError> {
        text.parse()
    }
}

impl From<NodeAddress> for String {
    fn from(address: NodeAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    #[test]
    fn a_key_and_an_address_with_a_key_name_a_node() {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        let key: NodeAddress = node.to_string().parse().unwrap();
        let hinted: NodeAddress = format!("keyferry:{node}/name?via=/ip4/192.0.2.1/tcp/4040").parse().unwrap();

        assert_eq!(key, NodeAddress::from(node));
        assert_eq!((hinted.node, hinted.hints.len()), (node, 1));
        for address in [key, hinted] {
            assert_eq!(address.to_string().parse(), Ok(address.clone()));
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<NodeAddress>(&json).unwrap(), address);
        }
    }

    #[test]
    fn what_names_no_node_is_refused() {
        let content = format!("keyferry:{}", "0".repeat(64));
        assert_eq!(content.parse::<NodeAddress>(), Err(NodeAddressError::NoNode));
        assert!(matches!("nonsense".parse::<NodeAddress>(), Err(NodeAddressError::Address(_))));
    }
}
