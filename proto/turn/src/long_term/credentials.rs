//! A user name and its password.
//!
//! What it is not: proof; that is a [`Key`](super::Key).

use zeroize::Zeroizing;

/// The longest user name in bytes (RFC 8489 §14.3: less than 509).
pub const MAX_USERNAME_LEN: usize = 508;
/// The longest password in bytes. RFC 8489 has no limit; those made by servers are much shorter.
pub const MAX_PASSWORD_LEN: usize = 512;

/// A user name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCredentials {
    username: String,
    password: Zeroizing<String>,
}

/// Text that is no user name or password. The user's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserCredentialsError {
    /// No user name.
    #[error("the user name is empty")]
    EmptyUsername,
    /// A user name longer than [`MAX_USERNAME_LEN`].
    #[error("the user name has {got} bytes; at most {MAX_USERNAME_LEN} are allowed")]
    LongUsername {
        /// Its length.
        got: usize,
    },
    /// A password longer than [`MAX_PASSWORD_LEN`].
    #[error("the password has {got} bytes; at most {MAX_PASSWORD_LEN} are allowed")]
    LongPassword {
        /// Its length.
        got: usize,
    },
}

impl UserCredentials {
    /// Takes a user name and its password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Result<Self, UserCredentialsError> {
        let (username, password) = (username.into(), Zeroizing::new(password.into()));
        match (username.len(), password.len()) {
            (0, _) => Err(UserCredentialsError::EmptyUsername),
            (got, _) if got > MAX_USERNAME_LEN => Err(UserCredentialsError::LongUsername { got }),
            (_, got) if got > MAX_PASSWORD_LEN => Err(UserCredentialsError::LongPassword { got }),
            _ => Ok(Self { username, password }),
        }
    }

    /// The user name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl std::fmt::Debug for UserCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}
