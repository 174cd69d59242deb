//! Credentials that run out by themselves: what one server issues, every server that knows the secret can check, and none has to keep
//! anything.
//!
//! ```text
//! username = expiry (seconds since 1970, decimal) ":" identity
//! password = base64(HMAC-SHA-1(secret, username))
//! ```
//! It is the form of draft-uberti-behave-turn-rest-00, which coturn (`--use-auth-secret`) understands too; for its sake
//! the hash is SHA-1, which as HMAC is sound.
//!
//! What it is not: a decision on who gets them.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use keyferry_net::time::UnixTime;

use crate::long_term::UserCredentials;

/// The longest identity that gets credentials or is believed: a username has at most 508 bytes (RFC 8489 §14.3), and the table
/// of quotas holds identities.
pub const MAX_IDENTITY_LEN: usize = 128;

/// The secret that a server signs credentials with.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why credentials are not those of a secret, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// It is not of the form of a username that was issued.
    #[error("this is not a username that a server issues")]
    Form,
    /// It has run out.
    #[error("the credentials ran out at {expiry:?}")]
    Expired {
        /// When.
        expiry: UnixTime,
    },
}

impl Secret {
    /// Takes these bytes as a secret; a random one should have 32.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Issues credentials; `None` when the identity is empty, too long or not printable ASCII without a colon.
    pub fn issue(&self, identity: &str, expiry: UnixTime) -> Option<UserCredentials> {
        let is_plain = identity.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !is_plain || identity.is_empty() || identity.len() > MAX_IDENTITY_LEN {
            return None;
        }
        let username = format!("{}:{identity}", expiry.0);
        let password = self.password(&username)?;
        UserCredentials::new(username, password).ok()
    }

    /// The identity that a username names, with the password that proves it, if it is still good.
    pub fn check<'a>(&self, username: &'a str, now: UnixTime) -> Result<(&'a str, String), NotIssued> {
        let (expiry, identity) = username.split_once(':').ok_or(NotIssued::Form)?;
        let expiry: u64 = expiry.parse().map_err(|_| NotIssued::Form)?;
        if identity.is_empty() || identity.len() > MAX_IDENTITY_LEN {
            return Err(NotIssued::Form);
        }
        let expiry = UnixTime(expiry);
        if expiry <= now {
            return Err(NotIssued::Expired { expiry });
        }
        Ok((identity, self.password(username).ok_or(NotIssued::Form)?))
    }

    /// The comparison with what a client proves is that of MESSAGE-INTEGRITY, in constant time.
    fn password(&self, username: &str) -> Option<String> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).ok()?;
        mac.update(username.as_bytes());
        Some(STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_issued_is_believed_until_it_runs_out() {
        let secret = Secret::new(b"north");
        let issued = secret.issue("ada", UnixTime(1_700_000_000)).unwrap();
        assert_eq!(issued.username(), "1700000000:ada");
        assert_eq!(
            secret.check(issued.username(), UnixTime(1_699_999_999)),
            Ok(("ada", issued.password().to_owned())),
            "the password is a function of secret and username"
        );
        let late = secret.check(issued.username(), UnixTime(1_700_000_000));
        assert_eq!(late, Err(NotIssued::Expired { expiry: UnixTime(1_700_000_000) }));
        assert_ne!(Secret::new(b"south").issue("ada", UnixTime(1_700_000_000)).unwrap().password(), issued.password());
    }

    #[test]
    fn it_is_the_password_that_openssl_makes() {
        // printf 1700000000:ada | openssl dgst -sha1 -hmac north -binary | base64
        let issued = Secret::new(b"north").issue("ada", UnixTime(1_700_000_000)).unwrap();
        assert_eq!(issued.password(), "ndZ88ryT1whVxdkcRLepT9D1MpM=");
    }

    #[test]
    fn identities_that_would_not_come_back_are_not_issued_to() {
        let secret = Secret::new(b"north");
        for bad in ["", "a:b", "a b", "é", &"x".repeat(MAX_IDENTITY_LEN + 1)] {
            assert_eq!(secret.issue(bad, UnixTime(1)), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_username_makes_it_fail(username in ".*", now: u64) {
            let _ = Secret::new(b"x").check(&username, UnixTime(now));
        }
    }
}
