//! Credentials of this node's relay, for those whom its policy allows.
//!
//! What it is not: the way by which they get to who asks.

use std::{net::IpAddr, time::Duration};

use keyferry_net::{ip::host_of, time::UnixTime};
use keyferry_proto::identity::NodeKey;
use keyferry_turn::rest_credentials::Secret;

use crate::base::data_dir::{Admission, AdmissionPolicy, ContactsFile};

/// What a client needs beside the relay's address.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// The username.
    pub username: String,
    /// The password.
    pub password: String,
    /// The realm.
    pub realm: String,
    /// When they run out.
    pub expiry: UnixTime,
}

impl std::fmt::Debug for RelayCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// This relay is not for who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this relay is not for that node")]
pub struct Refused;

/// Issues them.
#[derive(Debug)]
pub(super) struct Issuer {
    admission: Admission,
    secret: Secret,
    realm: String,
    lifetime: Duration,
    /// What pseudonyms are made with.
    salt: [u8; 32],
}

impl Issuer {
    pub(super) fn new(
        policy: AdmissionPolicy,
        contacts: ContactsFile,
        secret: Secret,
        realm: String,
        lifetime: Duration,
    ) -> Self {
        Self { admission: Admission::new(policy, contacts), secret, realm, lifetime, salt: rand::random() }
    }

    pub(super) fn policy(&self) -> AdmissionPolicy {
        self.admission.policy()
    }

    pub(super) async fn credentials_for(
        &self,
        node: Option<NodeKey>,
        remote: IpAddr,
        now: UnixTime,
    ) -> Result<RelayCredentials, Refused> {
        let is_admitted = match node {
            Some(node) => self.admission.admit(node).await,
            None => self.policy() == AdmissionPolicy::Everyone,
        };
        if !is_admitted {
            return Err(Refused);
        }
        let expiry = now.plus(self.lifetime);
        let issued = self.secret.issue(&self.pseudonym(node, remote), expiry).ok_or(Refused)?;
        Ok(RelayCredentials { username: issued.username, password: issued.password, realm: self.realm.clone(), expiry })
    }

    /// The identity of a client: the same for a node, or for a host of somebody who does not say who it is, as long as this relay
    /// runs. Usernames cross the network in the clear, so that it tells nobody else which node it is.
    fn pseudonym(&self, node: Option<NodeKey>, remote: IpAddr) -> String {
        let who = match node {
            Some(node) => [b"n".as_slice(), node.as_bytes()].concat(),
            None => [b"h".as_slice(), host_of(remote).to_string().as_bytes()].concat(),
        };
        blake3::keyed_hash(&self.salt, &who).to_hex()[..32].to_owned()
    }
}
