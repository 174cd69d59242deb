//! Credentials of this node's relay, for those whom its policy allows.
//!
//! What it is not: the way by which they get to who asks.

use std::{net::IpAddr, time::Duration};

use keyferry_net::{ip::host_of, time::UnixTime};
use keyferry_proto::{
    identity::NodeKey,
    relaying::{RelayCredentials, RelayRefusal},
};
use keyferry_turn::rest_credentials::Secret;

use crate::base::data_dir::{Admission, AdmissionPolicy, ContactsFile};

/// Issues them.
#[derive(Debug)]
pub(super) struct Issuer {
    admission: Admission,
    secret: Secret,
    realm: String,
    lifetime: Duration,
    tls_pin: Option<[u8; 32]>,
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
        tls_pin: Option<[u8; 32]>,
    ) -> Self {
        Self { admission: Admission::new(policy, contacts), secret, realm, lifetime, tls_pin, salt: rand::random() }
    }

    pub(super) fn policy(&self) -> AdmissionPolicy {
        self.admission.policy()
    }

    pub(super) async fn credentials_for(
        &self,
        node: Option<NodeKey>,
        remote: IpAddr,
        now: UnixTime,
    ) -> Result<RelayCredentials, RelayRefusal> {
        let is_admitted = match node {
            Some(node) => self.admission.admit(node).await,
            None => self.policy() == AdmissionPolicy::Everyone,
        };
        if !is_admitted {
            return Err(RelayRefusal::Policy);
        }
        let expires = now.plus(self.lifetime);
        let identity = self.pseudonym(node, remote);
        let issued = self.secret.issue(&identity, expires).expect("hexadecimal digits are an identity");
        Ok(RelayCredentials {
            realm: self.realm.clone(),
            username: issued.username().to_owned(),
            password: issued.password().to_owned(),
            expires,
            addrs: Vec::new(),
            tls_pin: self.tls_pin,
        })
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
