//! The STUN servers that a user names.
//!
//! What it is not: asking them; see `observers`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The port of STUN over TCP if the user names none (RFC 8489 §18.6).
pub const DEFAULT_STUN_PORT: u16 = 3478;
/// The longest name a host can have.
const MAX_NAME: usize = 253;

/// A STUN server as a user names it: `HOST:PORT`, `HOST`, `192.0.2.1:3478` or `[2001:db8::1]:3478`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StunServer {
    /// A host name or an IP address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Why a text names no STUN server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a STUN server; write it as HOST:PORT, such as stun.example.org:3478 or [2001:db8::1]:3478")]
pub struct ParseServerError {
    text: String,
}

impl FromStr for StunServer {
    type Err = ParseServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseServerError { text: text.to_owned() };
        if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
            return match addr.port() {
                0 => Err(error()),
                port => Ok(Self { host: addr.ip().to_string(), port }),
            };
        }
        let (host, port) = match text.rsplit_once(':') {
            _ if text.parse::<std::net::IpAddr>().is_ok() => (text, DEFAULT_STUN_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| error())?),
            None => (text, DEFAULT_STUN_PORT),
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = host.parse::<std::net::IpAddr>().is_ok() || host.chars().all(is_part);
        if host.is_empty() || host.len() > MAX_NAME || !is_name || port == 0 {
            return Err(error());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        let port = self.port;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_families_are_servers() {
        for (text, shown) in [
            ("stun.example.org:3479", "stun.example.org:3479"),
            ("stun.example.org", "stun.example.org:3478"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("192.0.2.1", "192.0.2.1:3478"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("2001:db8::1", "[2001:db8::1]:3478"),
        ] {
            assert_eq!(text.parse::<StunServer>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_form_to_follow() {
        for text in ["", ":3478", "host:0", "host:70000", "host:x", "stun:host:1", "a b:1", "192.0.2.1:0"] {
            let error = text.parse::<StunServer>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
