//! `turn:` and `turns:` URIs (RFC 7065).
//!
//! ```text
//! turn:[user:password@]host[:port][?transport=tcp]      port 3478 where none is named
//! turns:…                                               TLS, port 5349
//! ```
//! RFC 7065 has no user in the URI; people write it so all the same. In user and password `%41` stands for `A`, and a `:`, `@`, `%`,
//! `/` or `?` must be written that way (the password may have `:`).
//!
//! What it is not: a check that there is such a server.

use std::net::Ipv6Addr;

use keyferry_turn::long_term::{UserCredentials, UserCredentialsError};
use percent_encoding::percent_decode_str;

/// RFC 8656 §4 and RFC 7065 §3.2.
const DEFAULT_PORT: u16 = 3478;
const DEFAULT_TLS_PORT: u16 = 5349;

/// The longest URI: the longest user name and password, all percent-encoded, and a host name.
const MAX_LEN: usize = 4096;
/// The longest name (RFC 1035 §2.3.4).
const MAX_HOST_LEN: usize = 253;

/// What a URI says.
pub(super) struct TurnUri {
    /// Whether TURN runs within TLS.
    pub(super) secure: bool,
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Option<UserCredentials>,
}

/// Text that is no URI of a TURN server. The user's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Neither `turn:` nor `turns:`.
    #[error("a TURN server is written turn:user:password@host:port or turns:…; this has another beginning")]
    Scheme,
    /// As of a web address.
    #[error("a TURN server is written turn:host, without slashes")]
    Slashes,
    /// More bytes than any URI needs.
    #[error("the address of the TURN server has {got} bytes; at most {MAX_LEN} are allowed")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// A user without a password.
    #[error("the TURN server has a user name without a password: write user:password@ before the host")]
    NoPassword,
    /// Bytes that are no UTF-8, or a `%` that stands for nothing.
    #[error("the user name or password of the TURN server has a % that is no percent-encoded text: write %25 for %")]
    Encoding,
    /// No user name, or no password.
    #[error("the TURN server: {0}")]
    Credentials(#[from] UserCredentialsError),
    /// Neither a name nor an address.
    #[error("the TURN server has no valid host: {host:?}; an IPv6 address is written in brackets")]
    Host {
        /// What stands in its place.
        host: String,
    },
    /// No number from 1 to 65535.
    #[error("the TURN server has no valid port: {port:?}")]
    Port {
        /// What stands in its place.
        port: String,
    },
    /// Another transport than TCP.
    #[error("Keyferry uses TURN over TCP alone, not ?transport={transport}")]
    Transport {
        /// The transport.
        transport: String,
    },
    /// Another parameter than `transport`.
    #[error("the TURN server has an unknown parameter: {parameter:?}; there is ?transport=tcp alone")]
    Parameter {
        /// The parameter.
        parameter: String,
    },
}

impl TurnUri {
    /// Reads a URI.
    pub(super) fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_LEN {
            return Err(UriError::TooLong { got: text.len() });
        }
        let (scheme, rest) = text.trim().split_once(':').ok_or(UriError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "turn" => false,
            "turns" => true,
            _ => return Err(UriError::Scheme),
        };
        if rest.starts_with('/') {
            return Err(UriError::Slashes);
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        if let Some(query) = query {
            check_query(query)?;
        }
        let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
        let (host, port) = host_and_port(address, if secure { DEFAULT_TLS_PORT } else { DEFAULT_PORT })?;
        Ok(Self { secure, host, port, credentials: user.map(credentials).transpose()? })
    }
}

fn check_query(query: &str) -> Result<(), UriError> {
    match query.split_once('=') {
        Some(("transport", transport)) if transport.eq_ignore_ascii_case("tcp") => Ok(()),
        Some(("transport", transport)) => Err(UriError::Transport { transport: transport.to_owned() }),
        _ => Err(UriError::Parameter { parameter: query.to_owned() }),
    }
}

fn credentials(user: &str) -> Result<UserCredentials, UriError> {
    let (name, password) = user.split_once(':').ok_or(UriError::NoPassword)?;
    Ok(UserCredentials::new(decoded(name)?, decoded(password)?)?)
}

/// Undoes percent-encoding (RFC 3986 §2.1), strictly.
pub(super) fn decoded(text: &str) -> Result<String, UriError> {
    let is_hex = |digit: Option<&u8>| digit.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let mut percents = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if !percents.all(|(at, _)| is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2))) {
        return Err(UriError::Encoding);
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UriError::Encoding)?;
    Ok(decoded.into_owned())
}

/// Reads `host[:port]`, with IPv6 addresses in brackets.
pub(super) fn host_and_port(address: &str, default_port: u16) -> Result<(String, u16), UriError> {
    let bad_host = || UriError::Host { host: address.to_owned() };
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad_host)?;
            host.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
            (host, port)
        }
        None => {
            let end = address.find(':').unwrap_or(address.len());
            let (host, port) = address.split_at(end);
            if !is_name(host) {
                return Err(bad_host());
            }
            (host, port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => number(port).ok_or_else(|| UriError::Port { port: port.to_owned() })?,
        None if port.is_empty() => default_port,
        None => return Err(bad_host()),
    };
    Ok((host.to_owned(), port))
}

/// A name of the DNS, or an IPv4 address.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_allowed)
    };
    host.len() <= MAX_HOST_LEN && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

fn number(port: &str) -> Option<u16> {
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::TurnServer;

    fn server(text: &str) -> TurnServer {
        TurnServer::parse(text).unwrap()
    }

    #[test]
    fn each_form_is_read() {
        let cases = [
            ("turn:turn.example.org", "turn:turn.example.org:3478", None),
            ("turns:turn.example.org", "turns:turn.example.org:5349", None),
            ("TURNS:relay.example:443?transport=tcp", "turns:relay.example:443", None),
            ("turn:192.0.2.1:80?transport=TCP", "turn:192.0.2.1:80", None),
            ("turn:[2001:db8::1]", "turn:[2001:db8::1]:3478", None),
            ("turns:a:b@[::1]:443", "turns:[::1]:443", Some(("a", "b"))),
            ("turn:user:p:a:ss@host", "turn:host:3478", Some(("user", "p:a:ss"))),
            ("turn:al%3Aice:p%40ss%25@host", "turn:host:3478", Some(("al:ice", "p@ss%"))),
            ("turn:1700000000%3Aalice:dGVzdA==@host", "turn:host:3478", Some(("1700000000:alice", "dGVzdA=="))),
            ("turn:us@er:pass@host", "turn:host:3478", Some(("us@er", "pass"))),
        ];
        for (text, shown, user) in cases {
            let server = server(text);
            let credentials = server.credentials.as_ref().map(|user| (user.username(), user.password()));
            assert_eq!((server.to_string().as_str(), credentials), (shown, user), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_one_clear_line() {
        let cases = [
            ("", "another beginning"),
            ("turn.example.org:3478", "another beginning"),
            ("stun:host", "another beginning"),
            ("turn://host", "without slashes"),
            ("turn:", "no valid host"),
            ("turn:user@host", "without a password"),
            ("turn::pass@host", "the user name is empty"),
            ("turn:user:100%@host", "write %25"),
            ("turn:user:%ff@host", "write %25"),
            ("turn:2001:db8::1", "port"),
            ("turn:[2001:db8::1", "in brackets"),
            ("turn:[host]", "in brackets"),
            ("turn:[::1]x", "in brackets"),
            ("turn:ho st", "no valid host"),
            ("turn:host:0", "port"),
            ("turn:host:+80", "port"),
            ("turn:host:65536", "port"),
            ("turn:host:", "port"),
            ("turn:host?transport=udp", "over TCP alone"),
            ("turn:host?tls=1", "unknown parameter"),
        ];
        for (text, expected) in cases {
            let error = TurnServer::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(
            TurnServer::parse(&format!("turn:{}", "a".repeat(5000))).unwrap_err().to_string().contains("5005 bytes")
        );
        assert!(
            TurnServer::parse(&format!("turn:{}:p@host", "a".repeat(600)))
                .unwrap_err()
                .to_string()
                .contains("600 bytes")
        );
    }

    #[test]
    fn what_is_printed_shows_no_password() {
        let server = server("turn:alice:s3cret@host");
        let text = format!("{server} {server:?} {:?}", server.clone());
        assert!(text.contains("alice") && !text.contains("s3cret"), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(turns?:)?[ -~éß%@:\\[\\]?]{0,60}") {
            let _ = TurnServer::parse(&text);
        }

        #[test]
        fn any_user_and_password_can_be_written(name in ".{1,40}", password in ".{0,40}", secure: bool) {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let scheme = if secure { "turns" } else { "turn" };
            let server = server(&format!("{scheme}:{}:{}@host:1", encoded(&name), encoded(&password)));
            let user = server.credentials.unwrap();
            prop_assert_eq!((user.username(), user.password()), (name.as_str(), password.as_str()));
        }

        #[test]
        fn what_is_shown_is_read(host in "[a-z0-9]{1,20}(\\.[a-z]{2,8}){0,3}", port in 1_u16.., secure: bool) {
            let written = TurnServer::new(host, port, secure);
            prop_assert!(server(&written.to_string()).is_same(&written));
        }
    }
}
