//! A client, the messages that it has sent, and answers to them as a server would give them.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use stun_types::{
    attribute::{AlternateServer, AttributeWrite, ErrorCode, XorMappedAddress},
    message::{Message, MessageWrite, MessageWriteExt, MessageWriteVec, Method},
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, XorPeerAddress, XorRelayedAddress},
    message::{ALLOCATE, CONNECTION_ATTEMPT},
};

use super::super::{AddressFamily, Client, ClientOptions, ClientOutput, Config, DataId, Ending};
use crate::long_term::{AlgorithmList, Challenge, Claim, Key, PasswordAlgorithm, SecurityFeatures, UserCredentials};

pub(super) const PASSWORD: &str = "secret";
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

pub(super) fn relayed() -> SocketAddr {
    "198.51.100.1:50000".parse().unwrap()
}

pub(super) fn mapped() -> SocketAddr {
    "203.0.113.7:40000".parse().unwrap()
}

pub(super) fn peer() -> SocketAddr {
    "192.0.2.9:1234".parse().unwrap()
}

/// A message of the client, and where it has been sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) data: Option<DataId>,
    pub(super) message: Vec<u8>,
}

impl Sent {
    pub(super) fn method(&self) -> Method {
        Message::from_bytes(&self.message).unwrap().method()
    }
}

/// Both ends of a control connection.
pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) now: Instant,
    pub(super) challenge: Challenge,
    /// Whether requests must be under the nonce of now; not when answers are given late.
    pub(super) checks_nonces: bool,
    pub(super) sent: VecDeque<Sent>,
    /// What the client has told and asked for, except what it has sent.
    pub(super) told: VecDeque<ClientOutput>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self::with(Some(PASSWORD), Config::default(), None)
    }

    pub(super) fn with(password: Option<&str>, config: Config, algorithms: Option<&[PasswordAlgorithm]>) -> Self {
        let credentials = password.map(|password| UserCredentials::new("user", password).unwrap());
        let options = ClientOptions { credentials, family: AddressFamily::V4, seed: [3; 32], config };
        let now = now();
        let client = Client::new(options, now);
        let mut exchange = Self {
            client,
            now,
            challenge: challenge(1, algorithms),
            checks_nonces: true,
            sent: VecDeque::new(),
            told: VecDeque::new(),
        };
        exchange.drain();
        exchange
    }

    /// With an allocation that stands.
    pub(super) fn standing() -> Self {
        Self::standing_with(Config::default())
    }

    pub(super) fn standing_with(config: Config) -> Self {
        let mut exchange = Self::with(Some(PASSWORD), config, None);
        exchange.deny(401);
        exchange.grant_allocation(LIFETIME);
        assert!(matches!(exchange.tell(), ClientOutput::Allocated(_)));
        exchange
    }

    /// The next message of the client, which must be of this method.
    pub(super) fn take(&mut self, method: Method) -> Sent {
        let sent = self.sent.pop_front().expect("the client has sent something");
        assert_eq!(sent.method(), method);
        sent
    }

    /// The next thing that the client has told.
    pub(super) fn tell(&mut self) -> ClientOutput {
        self.told.pop_front().expect("the client has told something")
    }

    pub(super) fn assert_quiet(&self) {
        assert!(self.sent.is_empty() && self.told.is_empty(), "{:?} {:?}", self.sent, self.told);
    }

    pub(super) fn assert_ended(&mut self, ending: Ending) {
        assert_eq!(self.tell(), ClientOutput::Ended(ending));
        self.assert_quiet();
        assert_eq!(self.client.poll_timeout(), None);
    }

    /// Answers the next message with an error, and with a challenge where that belongs.
    pub(super) fn deny(&mut self, code: u16) {
        let sent = self.sent.pop_front().expect("the client has sent something");
        self.deny_this(&sent, code);
    }

    pub(super) fn deny_this(&mut self, sent: &Sent, code: u16) {
        let request = Message::from_bytes(&sent.message).unwrap();
        let mut answer = Message::builder_error(&request, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::new(code, "no").unwrap()).unwrap();
        if matches!(code, 401 | 438) {
            self.challenge.add_to(&mut answer).unwrap();
            return self.answer(sent.data, &answer.finish());
        }
        if code == 300 {
            answer.add_attribute(&AlternateServer::new(peer())).unwrap();
        }
        let answer = self.signed(sent, answer);
        self.answer(sent.data, &answer);
    }

    /// Answers the next message by calling its nonce stale, and takes another.
    pub(super) fn call_stale(&mut self) {
        let algorithms = self.challenge.algorithms.clone();
        self.challenge.nonce.push('x');
        self.challenge.algorithms = algorithms;
        self.deny(438);
    }

    /// Answers the next message, which must be proven and of this method.
    pub(super) fn grant(&mut self, method: Method, attributes: &[&dyn AttributeWrite]) {
        let sent = self.take(method);
        self.grant_this(&sent, attributes);
    }

    pub(super) fn grant_this(&mut self, sent: &Sent, attributes: &[&dyn AttributeWrite]) {
        let answer = self.success(sent, attributes);
        let answer = self.signed(sent, answer);
        self.answer(sent.data, &answer);
    }

    /// Answers without proof.
    pub(super) fn grant_unproven(&mut self, method: Method, attributes: &[&dyn AttributeWrite]) {
        let sent = self.take(method);
        let answer = self.success(&sent, attributes).finish();
        self.answer(sent.data, &answer);
    }

    pub(super) fn grant_allocation(&mut self, lifetime: Duration) {
        let sent = self.take(ALLOCATE);
        let id = Message::from_bytes(&sent.message).unwrap().transaction_id();
        let (relayed, mapped) = (XorRelayedAddress::new(relayed(), id), XorMappedAddress::new(mapped(), id));
        self.grant_this(&sent, &[&relayed, &mapped, &seconds(lifetime)]);
    }

    /// Tells the client that a peer has connected.
    pub(super) fn attempt(&mut self, connection: u32, peer: SocketAddr) {
        let mut message = Message::builder_indication(CONNECTION_ATTEMPT, MessageWriteVec::new());
        let id = message.transaction_id();
        message.add_attribute(&ConnectionId::new(connection)).unwrap();
        message.add_attribute(&XorPeerAddress::new(peer, id)).unwrap();
        self.answer(None, &message.finish());
    }

    pub(super) fn answer(&mut self, data: Option<DataId>, message: &[u8]) {
        match data {
            None => self.client.received(self.now, message),
            Some(data) => self.client.data_received(self.now, data, message),
        }
        self.drain();
    }

    pub(super) fn with_client(&mut self, act: impl FnOnce(&mut Client, Instant)) {
        act(&mut self.client, self.now);
        self.drain();
    }

    /// Lets time pass up to the next thing that is due, and returns how long that was.
    pub(super) fn wait(&mut self) -> Duration {
        let at = self.client.poll_timeout().expect("something is due");
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.client.handle_timeout(self.now);
        self.drain();
        waited
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send { message } => self.sent.push_back(Sent { data: None, message }),
                ClientOutput::SendData { data, message } => self.sent.push_back(Sent { data: Some(data), message }),
                output => self.told.push_back(output),
            }
        }
    }

    fn success(&self, sent: &Sent, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
        let request = Message::from_bytes(&sent.message).unwrap();
        let mut answer = Message::builder_success(&request, MessageWriteVec::new());
        attributes.iter().for_each(|attribute| answer.add_attribute(*attribute).unwrap());
        answer
    }

    /// Proves an answer as its request is proven, which it must be if at all.
    fn signed(&self, sent: &Sent, answer: MessageWriteVec) -> Vec<u8> {
        let request = Message::from_bytes(&sent.message).unwrap();
        let Some(claim) = Claim::read(&request, self.challenge.algorithms.as_ref()).unwrap() else {
            return answer.finish();
        };
        let key = Key::new(claim.protection, "user", &self.challenge.realm, PASSWORD);
        assert!(claim.user.is("user", &self.challenge.realm) && key.proves(&request));
        assert!(!self.checks_nonces || claim.nonce == self.challenge.nonce, "an old nonce");
        key.sign(answer)
    }
}

pub(super) fn seconds(lifetime: Duration) -> Lifetime {
    Lifetime::new(u32::try_from(lifetime.as_secs()).unwrap())
}

fn challenge(number: u32, algorithms: Option<&[PasswordAlgorithm]>) -> Challenge {
    let features = SecurityFeatures { password_algorithms: algorithms.is_some(), username_anonymity: false };
    let rest = format!("nonce {number}");
    let nonce = if algorithms.is_some() { features.nonce(&rest) } else { rest };
    Challenge { realm: "realm".to_owned(), nonce, algorithms: algorithms.map(AlgorithmList::new) }
}

#[expect(clippy::disallowed_methods, reason = "the start of the test's own time")]
fn now() -> Instant {
    Instant::now()
}
