//! What a server asks for before it serves (RFC 8489 §9.2.4), and what a client makes of it (§9.2.5).
//!
//! What it is not: the error code that it comes with.

use stun_types::{
    attribute::{Nonce, Realm},
    message::{Message, MessageWriteExt, MessageWriteVec, StunWriteError},
};

use super::{AlgorithmList, Protection, SecurityFeatures, algorithm::PASSWORD_ALGORITHMS};

/// Realm, nonce and algorithms of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// The password algorithms; `None` from a server that does not know of them.
    pub algorithms: Option<AlgorithmList>,
}

/// A challenge to which there is no answer. The server's fault, or that of somebody on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// It lacks a realm or a nonce, or has one that is no text.
    #[error("the server asks for credentials without a valid realm and nonce")]
    Incomplete,
    /// The nonce announces algorithms that are missing (RFC 8489 §9.2.5), or a later challenge is weaker than the first.
    #[error("the server's challenge has been stripped of its password algorithms on the way")]
    BidDown,
    /// No algorithm that is known here.
    #[error("the server knows no password algorithm that this node knows")]
    NoKnownAlgorithm,
}

impl Challenge {
    /// Reads the challenge of an error response.
    pub fn read(message: &Message<'_>) -> Result<Self, ChallengeError> {
        let realm = message.attribute::<Realm>().map_err(|_| ChallengeError::Incomplete)?;
        let nonce = message.attribute::<Nonce>().map_err(|_| ChallengeError::Incomplete)?;
        let algorithms = match message.raw_attribute(PASSWORD_ALGORITHMS) {
            None => None,
            Some(attribute) => Some(AlgorithmList::read(&attribute.value).ok_or(ChallengeError::Incomplete)?),
        };
        let challenge = Self { realm: realm.realm().to_owned(), nonce: nonce.nonce().to_owned(), algorithms };
        challenge.protection().map(|_| challenge)
    }

    /// Adds the challenge to an error response.
    pub fn add_to(&self, message: &mut MessageWriteVec) -> Result<(), StunWriteError> {
        message.add_attribute(&Realm::new(&self.realm)?)?;
        message.add_attribute(&Nonce::new(&self.nonce)?)?;
        match &self.algorithms {
            Some(algorithms) => message.add_attribute(&algorithms.attribute()),
            None => Ok(()),
        }
    }

    /// The security features that the nonce tells.
    pub fn features(&self) -> SecurityFeatures {
        SecurityFeatures::of_nonce(&self.nonce)
    }

    /// How to prove requests: by the first of the server's algorithms that this crate knows (RFC 8489 §9.2.5).
    pub fn protection(&self) -> Result<Protection, ChallengeError> {
        match &self.algorithms {
            Some(algorithms) => {
                algorithms.known().next().map(Protection::Sha256).ok_or(ChallengeError::NoKnownAlgorithm)
            }
            None if self.features().password_algorithms => Err(ChallengeError::BidDown),
            None => Ok(Protection::Sha1),
        }
    }
}
