//! What a relay answers.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{MAX_CLOCK_SKEW, MAX_LIFETIME, RelayingError};
use keyferry_net::time::UnixTime;

use crate::codec;

/// The greatest length of a realm, in bytes; RFC 8489 §14.9 allows 128 characters.
pub const MAX_REALM_LEN: usize = 128;
/// The greatest length of a username, in bytes; RFC 8489 §14.3 allows 508.
pub const MAX_USERNAME_LEN: usize = 256;
/// The greatest length of a password, in bytes.
pub const MAX_PASSWORD_LEN: usize = 128;
/// The greatest number of addresses of a relay.
pub const MAX_ADDRS: usize = 8;
/// The greatest length of a reply, in bytes: one with as much in it as there may be.
pub const MAX_REPLY_LEN: usize =
    4 + 3 * COUNT_LEN + MAX_REALM_LEN + MAX_USERNAME_LEN + MAX_PASSWORD_LEN + 8 + COUNT_LEN + MAX_ADDRS * ADDR_LEN + 33;

const COUNT_LEN: usize = 8;
/// An IPv6 address and its port, with the kind before it.
const ADDR_LEN: usize = 4 + 16 + 2;

/// Leave to use a relay for a time.
///
/// In hand it may hold anything; [`Reply::encode`] and [`Reply::parse`] are where its limits are checked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCredentials {
    /// The realm of the credentials (RFC 8489 §9.2).
    pub realm: String,
    /// The username.
    pub username: String,
    /// The password.
    pub password: String,
    /// From this moment on the credentials are void; at most [`MAX_LIFETIME`] ahead.
    pub expires: UnixTime,
    /// Where the relay is, besides where the request reached it; at most [`MAX_ADDRS`].
    #[serde(deserialize_with = "codec::at_most::<MAX_ADDRS, _, _>")]
    pub addrs: Vec<SocketAddr>,
    /// The SHA-256 hash of the SubjectPublicKeyInfo of the certificate that the relay shows for `turns:`, if it has one.
    pub tls_pin: Option<[u8; 32]>,
}

/// Why a relay does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum RelayRefusal {
    /// Its owner does not relay for this node.
    #[error("its owner does not relay for this node")]
    Policy,
    /// It has too much to do.
    #[error("it has too much to do at the moment")]
    Busy,
}

/// The reply of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The relay may be used.
    Issued(RelayCredentials),
    /// It may not.
    Refused(RelayRefusal),
}

impl Reply {
    /// Encodes a reply that is within the limits.
    pub fn encode(&self, now: UnixTime) -> Result<Vec<u8>, RelayingError> {
        self.check(now)?;
        Ok(codec::encode(self))
    }

    /// Decodes a reply, which is then within the limits.
    pub fn parse(bytes: &[u8], now: UnixTime) -> Result<Self, RelayingError> {
        let reply: Self = codec::decode(bytes, MAX_REPLY_LEN)?;
        reply.check(now)?;
        match codec::encode(&reply) == bytes {
            true => Ok(reply),
            false => Err(RelayingError::NotCanonical),
        }
    }

    fn check(&self, now: UnixTime) -> Result<(), RelayingError> {
        match self {
            Self::Issued(issued) => issued.check(now),
            Self::Refused(_) => Ok(()),
        }
    }
}

impl RelayCredentials {
    fn check(&self, now: UnixTime) -> Result<(), RelayingError> {
        check_credential("realm", &self.realm, MAX_REALM_LEN)?;
        check_credential("username", &self.username, MAX_USERNAME_LEN)?;
        check_credential("password", &self.password, MAX_PASSWORD_LEN)?;
        check_addrs(&self.addrs)?;
        let expires = self.expires;
        if expires <= now {
            return Err(RelayingError::Expired { expires, now });
        }
        if expires > now.plus(MAX_LIFETIME).plus(MAX_CLOCK_SKEW) {
            return Err(RelayingError::FromTheFuture { expires, now });
        }
        Ok(())
    }
}

impl fmt::Debug for RelayCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the password nor who uses which relay has a place in a log.
        f.debug_struct("RelayCredentials")
            .field("realm", &self.realm)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Printable ASCII without spaces, `"` and `\`: what no preparation of strings (RFC 8265) changes, and what may stand in a
/// quoted string as it is.
fn check_credential(field: &'static str, text: &str, limit: usize) -> Result<(), RelayingError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    match is_plain && (1..=limit).contains(&text.len()) {
        true => Ok(()),
        false => Err(RelayingError::Credential { field, got: text.len(), limit }),
    }
}

fn check_addrs(addrs: &[SocketAddr]) -> Result<(), RelayingError> {
    if addrs.len() > MAX_ADDRS {
        return Err(RelayingError::Addrs { got: addrs.len(), limit: MAX_ADDRS });
    }
    let is_wrong = |(index, addr): (usize, &SocketAddr)| {
        addr.port() == 0 || addr.ip() != addr.ip().to_canonical() || addrs[..index].contains(addr)
    };
    match addrs.iter().enumerate().position(is_wrong) {
        Some(index) => Err(RelayingError::Addr { index }),
        None => Ok(()),
    }
}
