//! Long-term credentials (RFC 8489 §9.2): how a client proves to a server that it knows a password, and the server that it knows it too.
//!
//! ```text
//! challenge        REALM | NONCE | PASSWORD-ALGORITHMS?                                        in 401 and 438
//! proven request   USERNAME or USERHASH | REALM | NONCE | PASSWORD-ALGORITHM and -ALGORITHMS?  then one of the two
//!                  MESSAGE-INTEGRITY          HMAC-SHA1 under MD5(user:realm:password)
//!                  MESSAGE-INTEGRITY-SHA256   HMAC-SHA256 under MD5(…) or SHA-256(user:realm:password)
//! nonce cookie     "obMatJos2" | 24 bits of security features in base64, 4 characters | whatever the server likes
//! ```
//! A client makes an [`Authorization`] of a [`Challenge`]; a server reads a [`Claim`] and checks it with a [`Key`].
//!
//! This crate takes user names and passwords as they are. RFC 8489 prepares them by the OpaqueString profile (RFC 8265), which leaves
//! printable ASCII alone.
//!
//! What it is not: a choice of nonces, of how long they last, or of who has which password.

mod algorithm;
mod authorization;
mod challenge;
mod claim;
mod credentials;
mod key;
mod nonce_cookie;

#[cfg(test)]
mod tests;

pub use self::{
    algorithm::{AlgorithmList, PasswordAlgorithm},
    authorization::Authorization,
    challenge::{Challenge, ChallengeError},
    claim::{Claim, ClaimedUser, MalformedClaim},
    credentials::{MAX_PASSWORD_LEN, MAX_USERNAME_LEN, UserCredentials, UserCredentialsError},
    key::{Key, Protection},
    nonce_cookie::SecurityFeatures,
};
