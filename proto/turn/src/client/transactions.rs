//! Requests and the answers to them: credentials, stale nonces, proofs, timeouts (RFC 8489 §6.3, §9.2.5).
//!
//! Over TCP nothing is sent again for want of an answer. The client repeats a request, under a new transaction id, when the server asks for
//! credentials that it has not seen yet (401) or for another nonce (438).
//!
//! What it is not: what an answer means for allocation, permissions and connections.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use keyferry_net::random::Random;
use stun_types::{
    attribute::ErrorCode,
    message::{MessageWrite, TransactionId},
};

use super::{ClientOutput, ConnectId, DataId, RequestError, requests::OutgoingRequest, responses::Response};
use crate::long_term::{Authorization, UserCredentials};

/// Requests that wait for their answers: at most one for each permission, Connect and data connection, and one for the allocation. So the
/// limits of those limit this too.
#[derive(Debug)]
pub(super) struct Transactions {
    authority: Authority,
    ids: TransactionIds,
    max_stale_nonces: u8,
    pending: BTreeMap<TransactionId, Transaction>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Allocate,
    Refresh,
    Release,
    Permission(IpAddr),
    Connect(ConnectId),
    Bind(DataId),
}

/// The connection to the server that carries a request, and so its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerConnection {
    Control,
    Data(DataId),
}

/// What an answer means for its request.
#[derive(Debug)]
pub(super) enum TransactionResult {
    /// Nobody has asked for it on this connection.
    Unasked,
    /// The request goes out once more, proven, or under the server's new nonce.
    Repeated {
        output: ClientOutput,
        is_stale: bool,
    },
    /// The server has done what was asked.
    Succeeded(Purpose),
    Failed(Purpose, RequestError),
}

/// What this side can prove.
#[derive(Debug)]
enum Authority {
    /// It has no credentials.
    Nobody,
    /// The server has not asked yet.
    Unchallenged(UserCredentials),
    /// All requests are proven.
    Challenged(Box<Authorization>),
}

#[derive(Debug)]
struct Transaction {
    purpose: Purpose,
    request: OutgoingRequest,
    deadline: Instant,
    /// Nonces of this request that were called stale.
    stale_nonces: u8,
    /// Whether the request, and so a success, is proven.
    is_proven: bool,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseVerdict {
    Success,
    /// Send it again, proven.
    Again,
    /// Send it again with the server's new nonce.
    AgainWithNonce,
}

impl Transactions {
    /// None yet; `seed` must be random.
    pub(super) fn new(credentials: Option<UserCredentials>, seed: [u8; 32], max_stale_nonces: u8) -> Self {
        Self {
            authority: credentials.map_or(Authority::Nobody, Authority::Unchallenged),
            ids: TransactionIds::new(seed),
            max_stale_nonces,
            pending: BTreeMap::new(),
        }
    }

    /// Makes a request: what to send.
    pub(super) fn request(
        &mut self,
        now: Instant,
        purpose: Purpose,
        request: OutgoingRequest,
        patience: Duration,
    ) -> ClientOutput {
        self.send(Transaction { purpose, request, deadline: now + patience, stale_nonces: 0, is_proven: false })
    }

    /// Takes an answer that has come in on this connection.
    pub(super) fn respond(&mut self, connection: ServerConnection, response: &Response<'_>) -> TransactionResult {
        let id = response.transaction_id();
        let is_expected =
            self.pending.get(&id).is_some_and(|transaction| transaction.purpose.connection() == connection);
        let Some(transaction) = is_expected.then(|| self.pending.remove(&id)).flatten() else {
            return TransactionResult::Unasked;
        };
        match self.judge(&transaction, response) {
            Ok(ResponseVerdict::Success) => TransactionResult::Succeeded(transaction.purpose),
            Ok(ResponseVerdict::Again) => {
                let output = self.send(Transaction { is_proven: false, ..transaction });
                TransactionResult::Repeated { output, is_stale: false }
            }
            Ok(ResponseVerdict::AgainWithNonce) => {
                let stale_nonces = transaction.stale_nonces + 1;
                let output = self.send(Transaction { is_proven: false, stale_nonces, ..transaction });
                TransactionResult::Repeated { output, is_stale: true }
            }
            Err(error) => TransactionResult::Failed(transaction.purpose, error),
        }
    }

    /// Takes a request that has had no answer in time.
    pub(super) fn late(&mut self, now: Instant) -> Option<Purpose> {
        let late = self.pending.iter().find(|(_, transaction)| transaction.deadline <= now).map(|(id, _)| *id)?;
        self.pending.remove(&late).map(|transaction| transaction.purpose)
    }

    /// Forgets requests: their answers will be ignored.
    pub(super) fn forget(&mut self, purpose: Purpose) {
        self.pending.retain(|_, transaction| transaction.purpose != purpose);
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|transaction| transaction.deadline).min()
    }

    fn send(&mut self, mut transaction: Transaction) -> ClientOutput {
        let id = self.ids.draw();
        let message = transaction.request.write(id);
        let message = match &self.authority {
            Authority::Challenged(authorization) => {
                transaction.is_proven = true;
                authorization.sign(message)
            }
            Authority::Nobody | Authority::Unchallenged(_) => message.finish(),
        };
        let output = match transaction.purpose.connection() {
            ServerConnection::Control => ClientOutput::Send { message },
            ServerConnection::Data(data) => ClientOutput::SendData { data, message },
        };
        self.pending.insert(id, transaction);
        output
    }

    /// Judges an answer, as far as credentials are concerned.
    fn judge(&mut self, transaction: &Transaction, response: &Response<'_>) -> Result<ResponseVerdict, RequestError> {
        match response.code(transaction.request.method())? {
            None => self.judge_success(transaction, response),
            Some(ErrorCode::UNAUTHORIZED) if !transaction.is_proven => self.show_credentials(response),
            Some(ErrorCode::STALE_NONCE) if transaction.is_proven => {
                if transaction.stale_nonces >= self.max_stale_nonces {
                    return Err(RequestError::StaleNonces);
                }
                self.take_nonce(response)
            }
            Some(code) => Err(response.error(code)),
        }
    }

    fn judge_success(
        &self,
        transaction: &Transaction,
        response: &Response<'_>,
    ) -> Result<ResponseVerdict, RequestError> {
        match &self.authority {
            Authority::Challenged(authorization) if transaction.is_proven && !response.is_proven(authorization) => {
                Err(RequestError::Unproven)
            }
            _ => Ok(ResponseVerdict::Success),
        }
    }

    /// 401 to a request without credentials.
    fn show_credentials(&mut self, response: &Response<'_>) -> Result<ResponseVerdict, RequestError> {
        let authorization = match &self.authority {
            Authority::Nobody => return Err(RequestError::CredentialsNeeded),
            Authority::Unchallenged(credentials) => Authorization::new(credentials.clone(), response.challenge()?)?,
            // Another request was challenged in the meantime.
            Authority::Challenged(_) => return Ok(ResponseVerdict::Again),
        };
        self.authority = Authority::Challenged(Box::new(authorization));
        Ok(ResponseVerdict::Again)
    }

    /// 438.
    fn take_nonce(&mut self, response: &Response<'_>) -> Result<ResponseVerdict, RequestError> {
        let Authority::Challenged(authorization) = &mut self.authority else {
            return Err(RequestError::Other { code: ErrorCode::STALE_NONCE });
        };
        authorization.renew(response.challenge()?)?;
        Ok(ResponseVerdict::AgainWithNonce)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Purpose {
    fn connection(self) -> ServerConnection {
        match self {
            Self::Bind(data) => ServerConnection::Data(data),
            _ => ServerConnection::Control,
        }
    }
}

/// Transaction ids that a stranger cannot guess (RFC 8489 §5), drawn from one seed.
#[derive(Debug)]
struct TransactionIds {
    random: Random,
}

impl TransactionIds {
    fn new(seed: [u8; 32]) -> Self {
        Self { random: Random::new(seed) }
    }

    /// The next id; no two are alike.
    fn draw(&mut self) -> TransactionId {
        self.random.next_u128().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_stream_and_no_two_ids_of_it_are_alike() {
        let (mut one, mut other) = (TransactionIds::new([7; 32]), TransactionIds::new([7; 32]));
        let first = one.draw();
        assert_eq!(first, other.draw());
        assert_ne!(first, one.draw());
        assert_ne!(TransactionIds::new([8; 32]).draw(), first);
    }
}
