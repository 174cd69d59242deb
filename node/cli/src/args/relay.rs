//! Options for relaying for others.
//!
//! What it is not: options for using relays.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueHint};
use keyferry::config::{Network, RelayLimits};

use keyferry::config::{AdmissionPolicy, PortRange, Rates, RelayConfig, RelayUser, SecretText};

/// How to relay for others.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options for relaying")]
pub struct RelayOptions {
    /// A user for standard TURN clients, with a password. May be repeated.
    #[arg(
        long = "relay-user",
        env = "KEYFERRY_RELAY_USER",
        value_name = "NAME:PASSWORD",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub users: Vec<RelayUser>,
    /// A file with such users, one a line: others see command lines.
    #[arg(long = "relay-users-file", env = "KEYFERRY_RELAY_USERS_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub users_file: Option<PathBuf>,
    /// The secret behind credentials that run out, shared with other servers (coturn: --use-auth-secret) [default: a random one].
    #[arg(long = "relay-secret", env = "KEYFERRY_RELAY_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub secret: Option<SecretText>,
    /// A file with that secret.
    #[arg(long = "relay-secret-file", env = "KEYFERRY_RELAY_SECRET_FILE", value_name = "FILE", conflicts_with = "secret", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
    /// The realm of users and credentials [default: keyferry].
    #[arg(long = "relay-realm", env = "KEYFERRY_RELAY_REALM", value_name = "REALM")]
    pub realm: Option<String>,
    /// The address that this machine has outside, where a NAT maps all its ports to it. One of each family.
    #[arg(long = "relay-external", env = "KEYFERRY_RELAY_EXTERNAL", value_name = "IP", value_delimiter = ',')]
    pub external: Vec<IpAddr>,
    /// The ports at which peers are let in [default: 49152-65535].
    #[arg(long = "relay-ports", env = "KEYFERRY_RELAY_PORTS", value_name = "FIRST-LAST")]
    pub ports: Option<PortRange>,
    /// A network whose hosts may be peers although it is not of the public internet. May be repeated.
    #[arg(long = "relay-allow-peer", env = "KEYFERRY_RELAY_ALLOW_PEER", value_name = "NET", value_delimiter = ',')]
    pub allow_peers: Vec<Network>,
    /// The certificate chain for turns:, as PEM [default: one that is made, and kept in the data folder].
    #[arg(long = "relay-cert", env = "KEYFERRY_RELAY_CERT", value_name = "FILE", requires = "key", value_hint = ValueHint::FilePath)]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, as PEM.
    #[arg(id = "key", long = "relay-key", env = "KEYFERRY_RELAY_KEY", value_name = "FILE", requires = "certificate", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// How many bytes a second are relayed for one identity, such as 10M [default: as many as go].
    #[arg(long = "relay-rate", env = "KEYFERRY_RELAY_RATE", value_name = "BYTES", value_parser = parse_bytes)]
    pub rate: Option<u64>,
    /// How many bytes a second are relayed for all, in fair shares [default: as many as go].
    #[arg(long = "relay-total-rate", env = "KEYFERRY_RELAY_TOTAL_RATE", value_name = "BYTES", value_parser = parse_bytes)]
    pub total_rate: Option<u64>,
    /// How many bytes a day are relayed for one identity, such as 20G [default: 100G].
    #[arg(long = "relay-quota", env = "KEYFERRY_RELAY_QUOTA", value_name = "BYTES", value_parser = parse_bytes)]
    pub quota: Option<u64>,
}

impl RelayOptions {
    /// What they amount to, for a node that relays for these.
    pub fn config(&self, policy: AdmissionPolicy) -> RelayConfig {
        let defaults = RelayConfig::default();
        let mut limits = RelayLimits::default();
        if let Some(quota) = self.quota {
            limits.identity.bytes = Some(quota);
        }
        RelayConfig {
            policy,
            secret: self.secret.clone(),
            users: self.users.clone(),
            realm: self.realm.clone().unwrap_or(defaults.realm),
            ports: self.ports.unwrap_or_default(),
            external: self.external.clone(),
            allow_peers: self.allow_peers.clone(),
            limits,
            rates: Rates { identity: self.rate, host: None, all: self.total_rate },
            certificate: self.certificate.clone().zip(self.key.clone()),
            credentials_lifetime: defaults.credentials_lifetime,
        }
    }
}

/// Reads a number of bytes with a unit of thousands, such as `10M`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, last)) if last.is_ascii_alphabetic() => (&text[..at], last.to_ascii_uppercase()),
        _ => (text, ' '),
    };
    let factor: u64 = match unit {
        ' ' => 1,
        'K' => 1_000,
        'M' => 1_000_000,
        'G' => 1_000_000_000,
        'T' => 1_000_000_000_000,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "this is not a number of bytes; write it as 500000, 500K, 10M or 20G".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        relay: RelayOptions,
    }

    fn parse(line: &str) -> Result<RelayConfig, clap::Error> {
        let line = Line::try_parse_from(std::iter::once("keyferry").chain(line.split_whitespace()))?;
        Ok(line.relay.config(AdmissionPolicy::Everyone))
    }

    #[test]
    fn external_addresses_are_told_with_commas_or_one_by_one_and_are_addresses_alone() {
        let external: Vec<IpAddr> = vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for line in
            ["--relay-external 203.0.113.1,2001:db8::1", "--relay-external 203.0.113.1 --relay-external 2001:db8::1"]
        {
            assert_eq!(parse(line).unwrap().external, external, "{line}");
        }
        assert!(parse("").unwrap().external.is_empty());
        for bad in ["relay.example.org", "203.0.113.1:4600", "[2001:db8::1]", "203.0.113.0/24", "203.0.113.1,"] {
            let error = parse(&format!("--relay-external {bad}")).unwrap_err().to_string();
            assert!(error.contains("--relay-external"), "{error}");
        }
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        let config = parse("--relay-cert chain.pem --relay-key key.pem").unwrap();
        assert_eq!(config.certificate, Some(("chain.pem".into(), "key.pem".into())));
        assert_eq!(parse("").unwrap().certificate, None);
        for alone in ["--relay-cert chain.pem", "--relay-key key.pem"] {
            assert!(parse(alone).is_err(), "{alone}");
        }
    }

    #[test]
    fn bytes_are_read_with_their_unit() {
        for (text, bytes) in [("1", 1), ("500K", 500_000), ("10M", 10_000_000), ("20g", 20_000_000_000)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for bad in ["", "0", "M", "1.5G", "-1", "99999999999T", "5X", "é"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
