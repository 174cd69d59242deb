//! How an operator wants a relay to run.
//!
//! What it is not: the limits themselves, which are [`keyferry_turn::server::RelayLimits`].

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use keyferry_net::ip::{Class, Network};
use keyferry_turn::{AddressFamily, server::RelayLimits};

use crate::base::{data_dir::AdmissionPolicy, secret_text::SecretText};

/// The realm, unless the operator names another.
const DEFAULT_REALM: &str = "keyferry";
/// How long issued credentials are valid, unless the operator chooses.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// How an operator wants a relay to run.
#[derive(Clone)]
pub struct RelayConfig {
    /// Who gets credentials.
    pub policy: AdmissionPolicy,
    /// The secret that signs credentials, if other servers share it; a random one otherwise.
    pub secret: Option<SecretText>,
    /// Users with a password of their own, for standard clients.
    pub users: Vec<RelayUser>,
    /// The realm of the credentials.
    pub realm: String,
    /// The ports for relayed addresses.
    pub ports: PortRange,
    /// The addresses to tell clients in place of this machine's own, one of each family, if a NAT maps all their ports to this machine.
    pub external: Vec<IpAddr>,
    /// Networks whose hosts may be peers although they do not belong to the public internet.
    pub allow_peers: Vec<Network>,
    /// How much everyone may have.
    pub limits: RelayLimits,
    /// How fast to relay.
    pub rates: Rates,
    /// The certificate chain and its key, as PEM files; otherwise the relay makes its own.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How long issued credentials are valid.
    pub credentials_lifetime: Duration,
}

/// How many bytes to relay in a second, in both directions together; `None` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of each identity.
    pub identity: Option<u64>,
    /// Of each host that clients come from.
    pub host: Option<u64>,
    /// Of all together, in fair shares of the hosts, and of the identities of one host.
    pub all: Option<u64>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            policy: AdmissionPolicy::Everyone,
            secret: None,
            users: Vec::new(),
            realm: DEFAULT_REALM.to_owned(),
            ports: PortRange::default(),
            external: Vec::new(),
            allow_peers: Vec::new(),
            limits: RelayLimits::default(),
            rates: Rates::default(),
            certificate: None,
            credentials_lifetime: CREDENTIALS_LIFETIME,
        }
    }
}

impl RelayConfig {
    /// The external addresses, or the first that cannot be one.
    pub(super) fn external(&self) -> Result<Vec<IpAddr>, IpAddr> {
        let mut told: Vec<IpAddr> = Vec::new();
        for ip in self.external.iter().map(IpAddr::to_canonical) {
            let is_second = told.iter().any(|other| AddressFamily::of(*other) == AddressFamily::of(ip));
            if Class::of(ip) == Class::NoHost || is_second {
                return Err(ip);
            }
            told.push(ip);
        }
        Ok(told)
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig")
            .field("policy", &self.policy)
            .field("users", &self.users.len())
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

/// A user with a password, written `NAME:PASSWORD`.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: SecretText,
}

impl FromStr for RelayUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, password) = text.split_once(':').ok_or("a user is written NAME:PASSWORD")?;
        let is_name = !name.is_empty() && name.len() <= keyferry_turn::long_term::MAX_USERNAME_LEN;
        if !is_name || password.is_empty() {
            return Err("neither the name nor the password may be empty".to_owned());
        }
        Ok(Self { name: name.to_owned(), password: password.into() })
    }
}

impl fmt::Debug for RelayUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A range of ports, both ends included, written `49152-65535`. RFC 8656 §7.2 asks for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 49_152, last: 65_535 }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port >= 1024);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("ports are written FIRST-LAST, such as 49152-65535, and are not below 1024".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_address_is_one_hosts_and_the_only_one_of_its_family() {
        let external = |ips: &[&str]| {
            let external = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            RelayConfig { external, ..RelayConfig::default() }.external()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(external(&[]), Ok(vec![]));
        assert_eq!(external(&["2001:db8::1", "203.0.113.1"]), Ok(vec![ip("2001:db8::1"), ip("203.0.113.1")]));
        assert_eq!(external(&["::ffff:203.0.113.1"]), Ok(vec![ip("203.0.113.1")]));
        assert_eq!(external(&["203.0.113.1", "203.0.113.2"]), Err(ip("203.0.113.2")));
        for bad in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert_eq!(external(&[bad]), Err(ip(bad)));
        }
    }

    #[test]
    fn what_is_typed_is_read_or_refused_with_a_form_to_follow() {
        assert_eq!("5000-6000".parse(), Ok(PortRange { first: 5000, last: 6000 }));
        assert_eq!("5000".parse(), Ok(PortRange { first: 5000, last: 5000 }));
        for bad in ["6000-5000", "80-90", "x", "5000-70000", ""] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        let user: RelayUser = "ada:love:lace".parse().unwrap();
        assert_eq!((user.name.as_str(), &*user.password), ("ada", "love:lace"));
        assert!(!format!("{user:?}").contains("lace"));
        for bad in ["ada", ":x", "ada:"] {
            assert!(bad.parse::<RelayUser>().is_err(), "{bad}");
        }
    }
}
