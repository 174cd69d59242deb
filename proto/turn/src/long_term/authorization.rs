//! What a client adds to its requests once it has been challenged (RFC 8489 §9.2.3.2).
//!
//! What it is not: a decision on when to try again.

use stun_types::{
    attribute::{Nonce, RawAttribute, Realm, Userhash, Username},
    message::{Message, MessageWriteExt, MessageWriteVec, StunWriteError},
};

use super::{Challenge, ChallengeError, Key, Protection, UserCredentials, algorithm::PASSWORD_ALGORITHM};

/// Credentials that answer a challenge.
#[derive(Debug, Clone)]
pub struct Authorization {
    credentials: UserCredentials,
    challenge: Challenge,
    key: Key,
}

impl Authorization {
    /// Answers a challenge.
    pub fn new(credentials: UserCredentials, challenge: Challenge) -> Result<Self, ChallengeError> {
        let key = Self::key(&credentials, &challenge)?;
        Ok(Self { credentials, challenge, key })
    }

    /// Answers a later challenge, with another nonce; refuses one that is weaker than the last.
    pub fn renew(&mut self, challenge: Challenge) -> Result<(), ChallengeError> {
        let is_weaker = challenge.algorithms.is_none() && self.challenge.algorithms.is_some();
        if is_weaker {
            return Err(ChallengeError::BidDown);
        }
        if challenge.realm != self.challenge.realm || challenge.algorithms != self.challenge.algorithms {
            self.key = Self::key(&self.credentials, &challenge)?;
        }
        self.challenge = challenge;
        Ok(())
    }

    /// The challenge that it answers.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Finishes a request with user name, realm, nonce and proof.
    pub fn sign(&self, mut request: MessageWriteVec) -> Vec<u8> {
        let added = self.add_to(&mut request);
        debug_assert!(added.is_ok(), "all lengths have been checked: {added:?}");
        self.key.sign(request)
    }

    /// Whether whoever made a response has the password too.
    pub fn proves(&self, response: &Message<'_>) -> bool {
        self.key.proves(response)
    }

    fn add_to(&self, request: &mut MessageWriteVec) -> Result<(), StunWriteError> {
        let (username, realm) = (self.credentials.username(), &self.challenge.realm);
        if self.challenge.features().username_anonymity {
            request.add_attribute(&Userhash::new(Userhash::compute(username, realm)))?;
        } else {
            request.add_attribute(&Username::new(username)?)?;
        }
        request.add_attribute(&Realm::new(realm)?)?;
        request.add_attribute(&Nonce::new(&self.challenge.nonce)?)?;
        if let (Protection::Sha256(algorithm), Some(offered)) = (self.key.protection(), &self.challenge.algorithms) {
            request.add_attribute(&offered.attribute())?;
            request.add_attribute(&RawAttribute::new(PASSWORD_ALGORITHM, &algorithm.value()))?;
        }
        Ok(())
    }

    fn key(credentials: &UserCredentials, challenge: &Challenge) -> Result<Key, ChallengeError> {
        Ok(Key::new(challenge.protection()?, credentials.username(), &challenge.realm, credentials.password()))
    }
}
