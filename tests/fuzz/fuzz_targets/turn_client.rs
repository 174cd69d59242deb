//! The client of a TURN allocation under any sequence of calls, with a server that answers rightly, wrongly, late, twice or with any
//! bytes, and that knows the password or does not: it does not panic, stays within its limits, names only connections that it has
//! asked for, ends, and says nothing after its end. The bytes of the script are read as a TCP stream as well.

#![no_main]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use keyferry_turn::{
    AddressFamily,
    client::{Client, ClientOptions, ClientOutput, Config, ConnectId, DataId, DataOrigin},
    framing::{MAX_MESSAGE_LEN, StunReader},
    long_term::{AlgorithmList, Challenge, Claim, Key, PasswordAlgorithm, SecurityFeatures, UserCredentials},
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use stun_types::{
    attribute::{AlternateServer, AttributeType, ErrorCode, RawAttribute, XorMappedAddress},
    message::{Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec, Method},
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, XorPeerAddress, XorRelayedAddress},
    message::CONNECTION_ATTEMPT,
};

const PASSWORD: &str = "secret";
const REALM: &str = "realm";

/// Outputs of one call, at most: a few for each permission and connection.
const MAX_OUTPUTS: usize = 64;
/// Calls of one script.
const MAX_CALLS: usize = 300;
/// Timeouts until a client that has been released has ended.
const MAX_TIMEOUTS: usize = 1000;

fuzz_target!(|input: &[u8]| {
    read_as_stream(input);
    let mut script = Unstructured::new(input);
    play(&mut script).ok();
});

fn read_as_stream(mut bytes: &[u8]) {
    let mut reader = StunReader::new();
    while !bytes.is_empty() {
        let wanted = reader.wanted();
        assert!((1..=MAX_MESSAGE_LEN).contains(&wanted));
        let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
        match reader.push(piece) {
            Ok(Some(message)) => assert!(message.len() <= MAX_MESSAGE_LEN),
            Ok(None) => {}
            Err(_) => return,
        }
        bytes = rest;
    }
}

fn play(script: &mut Unstructured<'_>) -> Result<()> {
    let mut world = World::new(script)?;
    world.drain();
    for _ in 0..MAX_CALLS {
        if script.is_empty() {
            break;
        }
        let done = world.step(script);
        world.drain();
        if done.is_err() {
            break;
        }
    }
    world.finish();
    Ok(())
}

struct World {
    client: Client,
    config: Config,
    now: Instant,
    offers: Option<AlgorithmList>,
    nonces: u32,
    /// What the client has sent, and on which connection.
    sent: Vec<(Option<DataId>, Vec<u8>)>,
    /// Data connections, and whether the client has not forgotten them.
    data: BTreeMap<DataId, bool>,
    connects: Vec<ConnectId>,
    allocated: bool,
    ended: bool,
}

impl World {
    fn new(script: &mut Unstructured<'_>) -> Result<Self> {
        let config = Config { max_permissions: 3, max_connects: 2, max_unbound: 2, ..Config::default() };
        let credentials = script.ratio(7, 8)?.then(|| UserCredentials::new("user", PASSWORD).expect("a short name"));
        let family = if script.ratio(3, 4)? { AddressFamily::V4 } else { AddressFamily::V6 };
        let options = ClientOptions { credentials, family, seed: [9; 32], config: config.clone() };
        let offers = match script.int_in_range(0..=2_u8)? {
            0 => Some(AlgorithmList::new(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])),
            1 => Some(AlgorithmList::new(&[PasswordAlgorithm::Md5])),
            _ => None,
        };
        let now = Instant::now();
        Ok(Self {
            client: Client::new(options, now),
            config,
            now,
            offers,
            nonces: 0,
            sent: Vec::new(),
            data: BTreeMap::new(),
            connects: Vec::new(),
            allocated: false,
            ended: false,
        })
    }

    fn step(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        match script.int_in_range(0..=13_u8)? {
            0 => {
                let bytes: Vec<u8> = script.arbitrary()?;
                self.client.received(self.now, &bytes);
            }
            1 => {
                if let Some(data) = self.some_data(script)? {
                    let bytes: Vec<u8> = script.arbitrary()?;
                    self.client.data_received(self.now, data, &bytes);
                }
            }
            2 => _ = self.client.permit(self.now, addr(script)?.ip()),
            3 => {
                if let Ok(connect) = self.client.connect(self.now, addr(script)?) {
                    assert!(!self.ended, "a wish was taken after the end");
                    self.connects.push(connect);
                }
            }
            4 => {
                if !self.connects.is_empty() {
                    let connect = *script.choose(&self.connects)?;
                    self.client.abandon(connect);
                }
            }
            5 => {
                if let Some(data) = self.some_data(script)? {
                    self.client.data_connected(self.now, data);
                }
            }
            6 => {
                if let Some(data) = self.some_data(script)? {
                    // Forgotten without a word.
                    self.data.insert(data, false);
                    self.client.data_closed(data);
                }
            }
            7 => {
                let attempt = attempt(script)?;
                self.client.received(self.now, &attempt);
            }
            8 => {
                self.now += Duration::from_millis(script.arbitrary::<u32>()? as u64 % 300_000);
                self.client.handle_timeout(self.now);
            }
            9 if script.ratio(1, 8)? => self.client.release(self.now),
            10 if script.ratio(1, 16)? => self.client.control_closed(),
            _ => self.answer(script)?,
        }
        Ok(())
    }

    /// Answers something that the client has sent, mostly rightly, mostly the last.
    fn answer(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.sent.last() else { return Ok(()) };
        let (data, request) = if script.ratio(3, 4)? { last.clone() } else { script.choose(&self.sent)?.clone() };
        let Ok(request) = Message::from_bytes(&request) else { return Ok(()) };
        let mut answer = match script.int_in_range(0..=4_u8)? {
            0 => self.refusal(&request, script)?,
            1 => self.challenge(&request, script)?,
            _ => self.success(&request, script)?,
        };
        if script.ratio(1, 16)? && !answer.is_empty() {
            let at = script.choose_index(answer.len())?;
            answer[at] ^= script.arbitrary::<u8>()?;
        }
        match data {
            None => self.client.received(self.now, &answer),
            Some(data) => self.client.data_received(self.now, data, &answer),
        }
        Ok(())
    }

    fn success(&self, request: &Message<'_>, script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let method = if script.ratio(15, 16)? { request.method() } else { Method::new(script.int_in_range(1..=12)?) };
        let kind = MessageType::from_class_method(MessageClass::Success, method);
        let id = request.transaction_id();
        let mut answer = Message::builder(kind, id, MessageWriteVec::new());
        drop(answer.add_attribute(&XorRelayedAddress::new(addr(script)?, id)));
        drop(answer.add_attribute(&XorMappedAddress::new(addr(script)?, id)));
        let lifetime = *script.choose(&[600, 0, 1, 30, u32::MAX])?;
        drop(answer.add_attribute(&Lifetime::new(lifetime)));
        drop(answer.add_attribute(&ConnectionId::new(script.int_in_range(0..=4)?)));
        if script.ratio(1, 16)? {
            let value: [u8; 8] = script.arbitrary()?;
            let kind = *script.choose(&[0x0003, 0x0016, 0x7fff, 0x8022])?;
            drop(answer.add_attribute(&RawAttribute::new(AttributeType::new(kind), &value)));
        }
        self.signed(request, answer, script)
    }

    fn refusal(&self, request: &Message<'_>, script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let mut answer = Message::builder_error(request, MessageWriteVec::new());
        let code = *script.choose(&[300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 500, 508])?;
        if let Ok(code) = ErrorCode::new(code, "no") {
            drop(answer.add_attribute(&code));
        }
        if script.arbitrary()? {
            drop(answer.add_attribute(&AlternateServer::new(addr(script)?)));
        }
        self.signed(request, answer, script)
    }

    fn challenge(&mut self, request: &Message<'_>, script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let mut answer = Message::builder_error(request, MessageWriteVec::new());
        let code = if script.arbitrary()? { 401 } else { 438 };
        if let Ok(code) = ErrorCode::new(code, "prove it") {
            drop(answer.add_attribute(&code));
        }
        self.nonces += 1;
        let features = SecurityFeatures {
            password_algorithms: self.offers.is_some() != script.ratio(1, 16)?,
            username_anonymity: script.ratio(1, 4)?,
        };
        let nonce = features.nonce(&self.nonces.to_string());
        let challenge = Challenge { realm: REALM.to_owned(), nonce, algorithms: self.offers.clone() };
        drop(challenge.add_to(&mut answer));
        Ok(answer.finish())
    }

    /// Proves an answer as the request is proven, if the script wants that.
    fn signed(&self, request: &Message<'_>, answer: MessageWriteVec, script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let claim = Claim::read(request, self.offers.as_ref()).ok().flatten();
        match claim.filter(|_| script.ratio(15, 16).unwrap_or_default()) {
            Some(claim) => {
                let password = if script.ratio(15, 16)? { PASSWORD } else { "another" };
                Ok(Key::new(claim.protection, "user", REALM, password).sign(answer))
            }
            None => Ok(answer.finish()),
        }
    }

    /// Any data connection there ever was: events may cross with the client's decision to close.
    fn some_data(&self, script: &mut Unstructured<'_>) -> Result<Option<DataId>> {
        let all: Vec<DataId> = self.data.keys().copied().collect();
        if all.is_empty() { Ok(None) } else { script.choose(&all).map(|data| Some(*data)) }
    }

    fn drain(&mut self) {
        let mut drained = 0;
        while let Some(output) = self.client.poll_output() {
            drained += 1;
            assert!(drained <= MAX_OUTPUTS, "one call makes endless work");
            assert!(!self.ended, "after its end the client wants {output:?}");
            self.obey(output);
        }
        assert_eq!(self.client.has_ended(), self.ended);
        if self.ended {
            assert_eq!(self.client.poll_timeout(), None, "what has ended waits for nothing");
            assert!(self.data.values().all(|is_held| !is_held), "a data connection is left behind");
        }
        let held = self.data.values().filter(|is_held| **is_held).count();
        assert!(held <= self.config.max_connects + self.config.max_unbound, "{held} data connections");
    }

    fn obey(&mut self, output: ClientOutput) {
        match output {
            ClientOutput::Send { message } => self.sent.push((None, whole(message))),
            ClientOutput::SendData { data, message } => {
                assert_eq!(self.data.get(&data), Some(&true), "sent to a connection that is none");
                self.sent.push((Some(data), whole(message)));
            }
            ClientOutput::OpenData { data } => assert_eq!(self.data.insert(data, true), None, "opened twice"),
            ClientOutput::CloseData { data } => self.forget(data),
            ClientOutput::Bound { data, origin } => {
                self.forget(data);
                if let DataOrigin::Connect { connect, .. } = origin {
                    assert!(self.connects.contains(&connect), "nobody wished for it");
                }
            }
            ClientOutput::Allocated(allocated) => {
                assert!(!std::mem::replace(&mut self.allocated, true), "allocated twice");
                assert!(allocated.relayed.port() != 0 && !allocated.lifetime.is_zero());
            }
            ClientOutput::ConnectFailed { connect, .. } => {
                assert!(self.connects.contains(&connect), "nobody wished for it")
            }
            ClientOutput::Permitted { .. } | ClientOutput::PermissionRefused { .. } => {}
            ClientOutput::Ended(_) => self.ended = true,
        }
        // What is older is answered no more.
        if self.sent.len() > 64 {
            self.sent.remove(0);
        }
    }

    fn forget(&mut self, data: DataId) {
        assert!(self.data.insert(data, false).is_some(), "closed what never was");
    }

    /// Gives the allocation back, and leaves the client alone: it ends by itself.
    fn finish(&mut self) {
        self.client.release(self.now);
        self.drain();
        for _ in 0..MAX_TIMEOUTS {
            let Some(at) = self.client.poll_timeout() else {
                assert!(self.ended, "waits for nothing, and has not ended");
                return;
            };
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
            self.drain();
        }
        panic!("no end");
    }
}

fn whole(message: Vec<u8>) -> Vec<u8> {
    assert!(message.len() <= MAX_MESSAGE_LEN && Message::from_bytes(&message).is_ok(), "what is sent is STUN");
    message
}

/// One of few addresses, so that things meet.
fn addr(script: &mut Unstructured<'_>) -> Result<SocketAddr> {
    let last = script.int_in_range(0..=4_u8)?;
    let ip: IpAddr = if script.ratio(7, 8)? {
        [192, 0, 2, last].into()
    } else {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into()
    };
    Ok(SocketAddr::new(ip, if script.ratio(15, 16)? { 1000 + u16::from(last) } else { script.arbitrary()? }))
}

/// The indication that a peer has connected.
fn attempt(script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let class = if script.ratio(7, 8)? { MessageClass::Indication } else { MessageClass::Request };
    let kind = MessageType::from_class_method(class, CONNECTION_ATTEMPT);
    let id = script.arbitrary::<u128>()?.into();
    let mut message = Message::builder(kind, id, MessageWriteVec::new());
    drop(message.add_attribute(&ConnectionId::new(script.int_in_range(0..=4)?)));
    drop(message.add_attribute(&XorPeerAddress::new(addr(script)?, id)));
    Ok(message.finish())
}
