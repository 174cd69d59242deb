//! Whom the server believes: long-term credentials (RFC 8489 §9.2) of users that the operator has named, and credentials
//! that were issued and run out ([`crate::rest_credentials`]).
//!
//! What it is not: what a client may do once it is believed.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Instant};

use stun_types::message::Message;

use super::{nonce::Nonces, request::TurnRefusal};
use keyferry_net::time::UnixTime;

use crate::{
    long_term::{AlgorithmList, Claim, ClaimedUser, Key, PasswordAlgorithm},
    rest_credentials::{MAX_IDENTITY_LEN, NotIssued, Secret},
};

/// The password algorithms that a client may choose from, the best first.
pub(super) fn algorithms() -> AlgorithmList {
    AlgorithmList::new(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])
}

/// Who a client is: the holder of quotas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserIdentity {
    /// A user that the operator has named.
    User(String),
    /// The identity to whom credentials were issued.
    Issued(String),
}

impl fmt::Display for UserIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Issued(name) => f.write_str(name),
        }
    }
}

/// Everyone whom the server believes.
#[derive(Clone, Default)]
pub struct Users {
    /// Users with their passwords. A name with a colon that begins with a number may be taken for an issued one.
    pub named: BTreeMap<String, String>,
    /// The secret with which credentials are issued.
    pub secret: Option<Secret>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("named", &self.named.len()).field("issues", &self.secret.is_some()).finish()
    }
}

/// Who has sent a message, with the key that signs the answer.
#[derive(Debug, Clone)]
pub(super) struct ProvenUser {
    pub(super) identity: UserIdentity,
    pub(super) key: Key,
}

/// The moment and the place of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) now: Instant,
    pub(super) unix: UnixTime,
    pub(super) host: IpAddr,
}

/// Tells who has sent a request.
#[derive(Debug)]
pub(super) struct Authenticator {
    users: Users,
    nonces: Nonces,
    realm: String,
}

impl Authenticator {
    pub(super) fn new(users: Users, nonces: Nonces, realm: String) -> Self {
        Self { users, nonces, realm }
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    /// A nonce for requests from this place from now on.
    pub(super) fn nonce(&self, at: At) -> String {
        self.nonces.make(at.now, at.host)
    }

    /// Finds out who has sent a request, in the order of RFC 8489 §9.2.4.
    pub(super) fn prove(&self, message: &Message<'_>, at: At) -> Result<ProvenUser, TurnRefusal> {
        let claim = Claim::read(message, Some(&algorithms())).map_err(|_| TurnRefusal::BadRequest)?;
        let claim = claim.ok_or(TurnRefusal::Unauthenticated)?;
        if !self.nonces.is_good(at.now, at.host, &claim.nonce) {
            return Err(TurnRefusal::StaleNonce);
        }
        // The challenge does not say that user names may be hashed.
        let ClaimedUser::Name(username) = &claim.user else { return Err(TurnRefusal::BadRequest) };
        let (identity, password) = self.users.find(username, at.unix)?;
        let key = Key::new(claim.protection, username, &self.realm, &password);
        if !key.proves(message) {
            return Err(TurnRefusal::Forged);
        }
        Ok(ProvenUser { identity, key })
    }
}

impl Users {
    /// The identity and the password behind a username.
    fn find(&self, username: &str, now: UnixTime) -> Result<(UserIdentity, String), TurnRefusal> {
        if let Some(password) = self.named.get(username) {
            return Ok((UserIdentity::User(username.to_owned()), password.clone()));
        }
        let secret = self.secret.as_ref().ok_or(TurnRefusal::Forged)?;
        match secret.check(username, now) {
            Ok((identity, password)) => {
                debug_assert!(identity.len() <= MAX_IDENTITY_LEN);
                Ok((UserIdentity::Issued(identity.to_owned()), password))
            }
            Err(NotIssued::Expired { .. }) => Err(TurnRefusal::Expired),
            Err(NotIssued::Form) => Err(TurnRefusal::Forged),
        }
    }
}
