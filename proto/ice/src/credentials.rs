//! The credentials of a negotiation: making them, and the rules for those of others (RFC 8445 §5.3).

use std::ops::RangeInclusive;

/// The allowed lengths of a username fragment, in characters. RFC 8445 §5.3 asks for 4 at least.
pub const UFRAG_LEN: RangeInclusive<usize> = 4..=32;

/// The allowed lengths of a password, in characters. RFC 8445 §5.3 asks for 22 at least.
pub const PASSWORD_LEN: RangeInclusive<usize> = 22..=64;

/// 48 random bits where 24 are asked for: the fragment also tells negotiations of one node apart.
const NEW_UFRAG_LEN: usize = 8;
/// 144 random bits where 128 are asked for.
const NEW_PASSWORD_LEN: usize = 24;

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The username fragment and password by which checks for one side are known (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The username fragment: [`UFRAG_LEN`] letters, digits, `+` or `/`.
    pub ufrag: String,
    /// The password: [`PASSWORD_LEN`] letters, digits, `+` or `/`.
    pub password: String,
}

/// A credential has a wrong length, or a character that ICE does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {field} has a wrong length or a character that ICE does not allow")]
pub struct CredentialsError {
    /// Which one: `username fragment` or `password`.
    pub field: &'static str,
}

impl Credentials {
    /// Makes the credentials of one negotiation from 32 random bytes.
    pub fn from_random(random: &[u8; NEW_UFRAG_LEN + NEW_PASSWORD_LEN]) -> Self {
        let (ufrag, password) = random.split_at(NEW_UFRAG_LEN);
        let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte % 64)])).collect();
        Self { ufrag: text(ufrag), password: text(password) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password would let a reader of a log pass this side's checks.
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Checks the credentials that a peer has sent.
pub fn check_credentials(ufrag: &str, password: &str) -> Result<(), CredentialsError> {
    let is_valid = |text: &str, allowed: RangeInclusive<usize>| {
        allowed.contains(&text.len()) && text.bytes().all(|byte| ICE_CHARS.contains(&byte))
    };
    if !is_valid(ufrag, UFRAG_LEN) {
        return Err(CredentialsError { field: "username fragment" });
    }
    if !is_valid(password, PASSWORD_LEN) {
        return Err(CredentialsError { field: "password" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_credentials_are_valid_and_differ() {
        let [one, other] = [[7; 32], [200; 32]].map(|random| Credentials::from_random(&random));
        for credentials in [&one, &other] {
            assert_eq!(check_credentials(&credentials.ufrag, &credentials.password), Ok(()));
        }
        assert_ne!(one.ufrag, other.ufrag);
        assert_ne!(one.password, other.password);
    }

    #[test]
    fn lengths_and_characters_are_checked() {
        let password = "p".repeat(22);
        let ufrag = |text: &str| check_credentials(text, &password).is_ok();
        assert!(ufrag("ab+/") && ufrag(&"u".repeat(32)));
        assert!(!ufrag("abc") && !ufrag("ab:cd") && !ufrag("äbcd") && !ufrag(&"u".repeat(33)));
        let password = |len| check_credentials("abcd", &"p".repeat(len));
        assert_eq!((password(22), password(64)), (Ok(()), Ok(())));
        for len in [0, 21, 65] {
            assert_eq!(password(len), Err(CredentialsError { field: "password" }));
        }
    }

    #[test]
    fn debug_output_holds_no_password() {
        let credentials = Credentials::from_random(&[7; 32]);
        let printed = format!("{credentials:?}");
        assert!(printed.contains(&credentials.ufrag) && !printed.contains(&credentials.password));
    }
}
