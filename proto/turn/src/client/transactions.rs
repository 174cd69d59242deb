//! Requests and the answers to them: credentials, stale nonces, proofs, timeouts (RFC 8489 §6.3, §9.2.5).
//!
//! Over TCP nothing is sent again for want of an answer. A request is repeated, under a new transaction id, when the server asks for
//! credentials that have not been shown (401) or for another nonce (438).
//!
//! What it is not: what an answer means for allocation, permissions and connections.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use stun_types::{
    attribute::ErrorCode,
    message::{MessageWrite, TransactionId},
};

use super::{Client, ClientOutput, ConnectId, DataId, RequestError, answers::Answer, requests::OutgoingRequest};
use crate::long_term::{Authorization, Credentials};

/// What this side can prove.
#[derive(Debug)]
pub(super) enum Authority {
    /// It has no credentials.
    Nobody,
    /// The server has not asked yet.
    Unchallenged(Credentials),
    /// All requests are proven.
    Challenged(Box<Authorization>),
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

/// The connection of a request, and so of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Control,
    Data(DataId),
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

/// Requests that wait for their answers. There is one at most for each permission, wish and data connection, and one for the
/// allocation: their limits are the limit of this.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pending: BTreeMap<TransactionId, Transaction>,
}

impl Transactions {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|transaction| transaction.deadline).min()
    }

    /// Forgets requests: their answers will be ignored.
    pub(super) fn forget(&mut self, purpose: Purpose) {
        self.pending.retain(|_, transaction| transaction.purpose != purpose);
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Purpose {
    fn channel(self) -> Channel {
        match self {
            Self::Bind(data) => Channel::Data(data),
            _ => Channel::Control,
        }
    }
}

impl Client {
    /// Sends a request.
    pub(super) fn request(&mut self, now: Instant, purpose: Purpose, request: OutgoingRequest) {
        let patience = match purpose {
            Purpose::Connect(_) => self.config.connect_timeout,
            Purpose::Release => self.config.release_timeout,
            _ => self.config.request_timeout,
        };
        let transaction = Transaction { purpose, request, deadline: now + patience, stale_nonces: 0, is_proven: false };
        self.send(transaction);
    }

    fn send(&mut self, mut transaction: Transaction) {
        let id = self.ids.draw();
        let message = transaction.request.write(id);
        let message = match &self.authority {
            Authority::Challenged(authorization) => {
                transaction.is_proven = true;
                authorization.sign(message)
            }
            Authority::Nobody | Authority::Unchallenged(_) => message.finish(),
        };
        self.counters.requests += 1;
        self.outputs.push_back(match transaction.purpose.channel() {
            Channel::Control => ClientOutput::Send { message },
            Channel::Data(data) => ClientOutput::SendData { data, message },
        });
        self.transactions.pending.insert(id, transaction);
    }

    /// Takes an answer that has come in on this connection.
    pub(super) fn answered(&mut self, now: Instant, channel: Channel, answer: &Answer<'_>) {
        let id = answer.transaction_id();
        let is_expected =
            self.transactions.pending.get(&id).is_some_and(|transaction| transaction.purpose.channel() == channel);
        let Some(transaction) = is_expected.then(|| self.transactions.pending.remove(&id)).flatten() else {
            self.counters.ignored += 1;
            return;
        };
        match self.judge(&transaction, answer) {
            Ok(Verdict::Success) => self.succeeded(now, transaction.purpose, answer),
            Ok(Verdict::Again) => self.send(Transaction { is_proven: false, ..transaction }),
            Ok(Verdict::AgainWithNonce) => {
                self.counters.stale_nonces += 1;
                let stale_nonces = transaction.stale_nonces + 1;
                self.send(Transaction { is_proven: false, stale_nonces, ..transaction });
            }
            Err(error) => self.failed(now, transaction.purpose, error),
        }
    }

    /// Ends the requests of which the time is up.
    pub(super) fn expire_requests(&mut self, now: Instant) {
        let late: Vec<TransactionId> = self
            .transactions
            .pending
            .iter()
            .filter_map(|(id, transaction)| (transaction.deadline <= now).then_some(*id))
            .collect();
        for id in late {
            // One failure may end all others.
            let Some(transaction) = self.transactions.pending.remove(&id) else { continue };
            self.counters.timeouts += 1;
            self.failed(now, transaction.purpose, RequestError::Silent);
        }
    }

    /// What is to be done about an answer, as far as credentials are concerned.
    fn judge(&mut self, transaction: &Transaction, answer: &Answer<'_>) -> Result<Verdict, RequestError> {
        match answer.code(transaction.request.method())? {
            None => self.judge_success(transaction, answer),
            Some(ErrorCode::UNAUTHORIZED) if !transaction.is_proven => self.show_credentials(answer),
            Some(ErrorCode::STALE_NONCE) if transaction.is_proven => {
                if transaction.stale_nonces >= self.config.max_stale_nonces {
                    return Err(RequestError::StaleNonces);
                }
                self.take_nonce(answer)
            }
            Some(code) => Err(answer.error(code)),
        }
    }

    fn judge_success(&mut self, transaction: &Transaction, answer: &Answer<'_>) -> Result<Verdict, RequestError> {
        match &self.authority {
            Authority::Challenged(authorization) if transaction.is_proven && !answer.is_proven(authorization) => {
                self.counters.unproven += 1;
                Err(RequestError::Unproven)
            }
            _ => Ok(Verdict::Success),
        }
    }

    /// 401 to a request without credentials.
    fn show_credentials(&mut self, answer: &Answer<'_>) -> Result<Verdict, RequestError> {
        let authorization = match &self.authority {
            Authority::Nobody => return Err(RequestError::CredentialsNeeded),
            Authority::Unchallenged(credentials) => Authorization::new(credentials.clone(), answer.challenge()?)?,
            // Another request was challenged in the meantime.
            Authority::Challenged(_) => return Ok(Verdict::Again),
        };
        self.authority = Authority::Challenged(Box::new(authorization));
        Ok(Verdict::Again)
    }

    /// 438.
    fn take_nonce(&mut self, answer: &Answer<'_>) -> Result<Verdict, RequestError> {
        let Authority::Challenged(authorization) = &mut self.authority else {
            return Err(RequestError::Other { code: ErrorCode::STALE_NONCE });
        };
        authorization.renew(answer.challenge()?)?;
        Ok(Verdict::AgainWithNonce)
    }

    fn succeeded(&mut self, now: Instant, purpose: Purpose, answer: &Answer<'_>) {
        let taken = match purpose {
            Purpose::Allocate => answer.allocated().and_then(|allocated| self.allocated(now, allocated)),
            Purpose::Refresh => answer.lifetime().map(|lifetime| self.refreshed(now, lifetime)),
            Purpose::Release => return self.released(),
            Purpose::Permission(peer) => return self.permitted(now, peer),
            Purpose::Connect(connect) => answer.connection().map(|connection| self.granted(now, connect, connection)),
            Purpose::Bind(data) => return self.bound(data),
        };
        if let Err(error) = taken {
            self.failed(now, purpose, error);
        }
    }

    fn failed(&mut self, now: Instant, purpose: Purpose, error: RequestError) {
        self.counters.malformed += u64::from(matches!(error, RequestError::Malformed(_)));
        match purpose {
            Purpose::Allocate => self.end(error.into()),
            Purpose::Refresh => self.refresh_failed(now, error),
            Purpose::Release => self.released(),
            Purpose::Permission(peer) => self.permission_failed(peer, error),
            Purpose::Connect(connect) => self.connect_failed(connect, error),
            Purpose::Bind(data) => self.give_up_data(data, error),
        }
    }
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Success,
    /// Send it again, proven.
    Again,
    /// Send it again with the server's new nonce.
    AgainWithNonce,
}
