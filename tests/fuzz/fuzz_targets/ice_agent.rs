//! An ICE agent under any sequence of calls, with a peer and a network that do what they like: it does not panic, stays
//! within its limits, names only connections that it has been given or asked for, ends, and says nothing after its end.

#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use keyferry_ice::{
    Agent, AgentOptions, Candidate, CandidateKind, Config, ConnId, ConnectFailure, ConnectMethod, Credentials,
    Description, LocalCandidate, Mapping, OpenTurn, Output, Priority, Role, Signal, Source, Stream, TcpType,
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use stun_types::{
    attribute::{AttributeType, ErrorCode, RawAttribute, Username, XorMappedAddress},
    message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageIntegrityCredentials, MessageWrite, MessageWriteExt,
        MessageWriteVec, ShortTermCredentials,
    },
};

const OUR_UFRAG: &str = "ours";
const OUR_PASSWORD: &str = "ourPasswordIsLongEnough";
const THEIR_UFRAG: &str = "theirs";
const THEIR_PASSWORD: &str = "theirPasswordIsLongEnough";

/// Outputs of one call, at most: a few for each connection and pair.
const MAX_OUTPUTS: usize = 512;
/// Calls of one script.
const MAX_CALLS: usize = 400;
/// Timeouts until an agent that is left alone has ended.
const MAX_TIMEOUTS: usize = 10_000;

fuzz_target!(|input: &[u8]| {
    let mut script = Unstructured::new(input);
    play(&mut script).ok();
});

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Attempted,
    Standing,
    Gone,
}

struct World {
    agent: Agent,
    stream: Stream,
    config: Config,
    started: Instant,
    now: Instant,
    conns: BTreeMap<ConnId, State>,
    /// Checks of the agent, which can be answered.
    sent: Vec<(ConnId, Vec<u8>)>,
    attempts: usize,
    addresses: Vec<(IpAddr, SocketAddr)>,
    ended: bool,
}

impl World {
    fn new(script: &mut Unstructured<'_>) -> Result<Self> {
        let config = if script.arbitrary()? { Config::default() } else { narrow() };
        let role = if script.arbitrary()? { Role::Controlling } else { Role::Controlled };
        let credentials = Credentials { ufrag: OUR_UFRAG.to_owned(), password: OUR_PASSWORD.to_owned() };
        let stream = if script.arbitrary()? { Stream::Direct } else { Stream::Relayed };
        let options = AgentOptions { stream, mapping: mapping(script)?, opening: script.arbitrary()? };
        let now = Instant::now();
        let agent = Agent::new(config.clone(), role, credentials, options, script.arbitrary()?, now);
        Ok(Self {
            agent,
            stream,
            config,
            started: now,
            now,
            conns: BTreeMap::new(),
            sent: Vec::new(),
            attempts: 0,
            addresses: Vec::new(),
            ended: false,
        })
    }

    /// One call with arguments of the script's choice.
    fn step(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        match script.int_in_range(0..=13_u8)? {
            0 => {
                let candidates = list(script, local_candidate)?;
                self.agent.add_local_candidates(self.now, &candidates, script.arbitrary()?);
            }
            1 => drop(self.agent.set_remote(self.now, description(script)?)),
            2 => drop(self.agent.handle_signal(self.now, signal(script)?)),
            3 => {
                if let Some(conn) = self.some_conn(script)? {
                    self.agent.opened(self.now, conn);
                }
            }
            4 => self.connected(script)?,
            5 => {
                if let Some(conn) = self.some_conn(script)? {
                    self.gone(conn);
                    self.agent.connect_failed(self.now, conn, failure(script)?);
                }
            }
            6 => self.accepted(script)?,
            7 => {
                if let Some(conn) = self.some_conn(script)? {
                    let message: Vec<u8> = script.arbitrary()?;
                    self.agent.received(self.now, conn, &message);
                }
            }
            8 | 9 => {
                if let Some(conn) = self.some_conn(script)? {
                    let message = request(script)?;
                    self.agent.received(self.now, conn, &message);
                }
            }
            10 | 11 => self.answer(script)?,
            12 => {
                if let Some(conn) = self.some_conn(script)? {
                    self.gone(conn);
                    self.agent.closed(self.now, conn);
                }
            }
            _ => {
                self.now += Duration::from_millis(u64::from(script.arbitrary::<u16>()? % 1500));
                self.agent.handle_timeout(self.now);
            }
        }
        Ok(())
    }

    fn connected(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        if let Some(conn) = self.some_conn(script)? {
            let local = addr(script)?;
            if self.conns[&conn] == State::Attempted {
                self.conns.insert(conn, State::Standing);
            }
            self.agent.connected(self.now, conn, local);
        }
        Ok(())
    }

    fn accepted(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        let (local, remote, first) = (addr(script)?, addr(script)?, request(script)?);
        if let Some(conn) = self.agent.accepted(self.now, local, remote) {
            assert!(!self.ended, "a connection was taken after the end");
            assert!(self.conns.insert(conn, State::Standing).is_none(), "a connection was handed out twice");
            self.agent.received(self.now, conn, &first);
        }
        Ok(())
    }

    /// Answers a check that the agent has sent, rightly or not.
    fn answer(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        if self.sent.is_empty() {
            return Ok(());
        }
        let (conn, request) = script.choose(&self.sent)?.clone();
        let Ok(request) = Message::from_bytes(&request) else { return Ok(()) };
        let password = if script.ratio(7, 8)? { THEIR_PASSWORD } else { OUR_PASSWORD };
        let answer = match script.int_in_range(0..=5_u8)? {
            0 => {
                let mut answer = Message::builder_error(&request, MessageWriteVec::new());
                let code = *script.choose(&[300_u16, 400, 401, 420, 487, 500])?;
                if let Ok(code) = ErrorCode::new(code, "no") {
                    drop(answer.add_attribute(&code));
                }
                signed(answer, password)
            }
            _ => {
                let mut answer = Message::builder_success(&request, MessageWriteVec::new());
                let mapped = XorMappedAddress::new(addr(script)?, request.transaction_id());
                drop(answer.add_attribute(&mapped));
                signed(answer, password)
            }
        };
        self.agent.received(self.now, conn, &answer);
        Ok(())
    }

    /// Any connection there ever was: events may cross with the agent's decision to close.
    fn some_conn(&self, script: &mut Unstructured<'_>) -> Result<Option<ConnId>> {
        let conns: Vec<_> = self.conns.keys().copied().collect();
        if conns.is_empty() {
            return Ok(None);
        }
        script.choose(&conns).map(|conn| Some(*conn))
    }

    fn gone(&mut self, conn: ConnId) {
        self.conns.insert(conn, State::Gone);
    }

    fn drain(&mut self) {
        let mut drained = 0;
        while let Some(output) = self.agent.poll_output() {
            drained += 1;
            assert!(drained <= MAX_OUTPUTS, "one call makes endless work");
            self.obey(output);
        }
        let live = self.conns.values().filter(|state| **state != State::Gone).count();
        assert!(live <= self.config.max_conns + usize::from(self.ended), "{live} connections");
        assert!(self.attempts <= self.config.max_attempts, "{} attempts", self.attempts);
        assert!(self.agent.pairs().len() <= self.config.max_pairs, "{} pairs", self.agent.pairs().len());
        if self.ended {
            assert_eq!(self.agent.poll_timeout(), None, "what has ended waits for nothing");
        }
    }

    fn obey(&mut self, output: Output) {
        assert!(!self.ended || matches!(output, Output::Close { .. }), "after its end the agent wants {output:?}");
        match output {
            Output::Connect { conn, source, remote, method } => self.connect(conn, source, remote, method),
            Output::Send { conn, message } => {
                assert!(self.conns.contains_key(&conn), "sent to a connection that never was");
                let sent = Message::from_bytes(&message).expect("what is sent is STUN");
                if sent.has_class(MessageClass::Request) {
                    self.sent.push((conn, message));
                }
            }
            Output::Nominating { conn } => assert!(self.conns.contains_key(&conn), "nominated what never was"),
            Output::Close { conn } => {
                assert!(self.conns.contains_key(&conn), "closed what never was");
                self.gone(conn);
            }
            Output::Signal(_) => {}
            Output::Selected(selected) => {
                assert!(self.conns.contains_key(&selected.conn), "selected what never was");
                self.ended = true;
            }
            Output::Failed(_) => self.ended = true,
        }
    }

    fn connect(&mut self, conn: ConnId, source: Source, remote: SocketAddr, method: ConnectMethod) {
        assert!(self.conns.insert(conn, State::Attempted).is_none(), "a connection was handed out twice");
        self.attempts += 1;
        match source {
            Source::Port(base) => {
                assert_eq!(self.stream, Stream::Direct, "nothing is opened in turns in the relayed stream");
                assert_eq!(base.is_ipv4(), remote.is_ipv4(), "families do not mix");
            }
            Source::Relayed(base) => {
                assert_eq!(self.stream, Stream::Relayed, "relays are for the relayed stream");
                assert_eq!(base.is_ipv4(), remote.is_ipv4(), "families do not mix");
            }
            Source::AnyPort(_) => {}
        }
        if let ConnectMethod::Opening { ttl } = method {
            assert!((1..=self.config.last_opening_ttl).contains(&ttl), "an opening SYN of TTL {ttl}");
        }
        if !self.addresses.iter().any(|(_, known)| *known == remote) {
            self.addresses.push((remote.ip(), remote));
        }
        let distinct: BTreeSet<_> = self.addresses.iter().map(|(_, addr)| *addr).collect();
        assert!(distinct.len() <= self.config.max_pairs, "one negotiation goes to {} addresses", distinct.len());
    }

    /// Tells the agent of a peer, if it does not know of one, and leaves it alone: it ends by itself.
    fn finish(&mut self) {
        let (ufrag, password) = (THEIR_UFRAG.to_owned(), THEIR_PASSWORD.to_owned());
        let nobody = Description {
            ufrag,
            password,
            candidates: Vec::new(),
            complete: true,
            mapping: Mapping::Unknown,
            opening: false,
        };
        self.agent.set_remote(self.now, nobody).ok();
        self.drain();
        for _ in 0..MAX_TIMEOUTS {
            let Some(at) = self.agent.poll_timeout() else {
                assert!(self.ended, "waits for nothing, and has not ended");
                return;
            };
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        panic!("no end {:?} after the start", self.now - self.started);
    }
}

/// Limits so narrow that every one of them is reached.
fn narrow() -> Config {
    Config { max_pairs: 4, max_conns: 3, max_unproven: 2, max_attempts: 6, ..Config::default() }
}

fn list<T>(script: &mut Unstructured<'_>, one: fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    (0..script.int_in_range(0..=6_usize)?).map(|_| one(script)).collect()
}

fn mapping(script: &mut Unstructured<'_>) -> Result<Mapping> {
    script.choose(&[Mapping::Unknown, Mapping::EndpointIndependent, Mapping::EndpointDependent]).copied()
}

fn failure(script: &mut Unstructured<'_>) -> Result<ConnectFailure> {
    use ConnectFailure::{AddrInUse, Other, Refused, TimedOut, Unreachable, Unsupported};
    script.choose(&[Refused, Unreachable, TimedOut, AddrInUse, Unsupported, Other]).copied()
}

/// One of few addresses, so that things meet.
fn addr(script: &mut Unstructured<'_>) -> Result<SocketAddr> {
    let last = script.int_in_range(0..=3_u8)?;
    let ip = match script.int_in_range(0..=3_u8)? {
        0 => Ipv4Addr::new(192, 0, 2, last).into(),
        1 => Ipv4Addr::new(198, 51, 100, last).into(),
        2 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
        _ => IpAddr::from(script.arbitrary::<[u8; 4]>()?),
    };
    Ok(SocketAddr::new(ip, if script.ratio(7, 8)? { 1000 + u16::from(last) } else { script.arbitrary()? }))
}

fn candidate(script: &mut Unstructured<'_>) -> Result<Candidate> {
    use CandidateKind::{Host, PortMapped, Relayed, ServerReflexive};
    let kind = *script.choose(&[Host, ServerReflexive, PortMapped, Relayed])?;
    let tcp_type = *script.choose(&[TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen])?;
    let mut candidate = Candidate::new(kind, tcp_type, addr(script)?, script.arbitrary()?);
    if script.ratio(1, 8)? {
        candidate.priority = Priority::try_from(script.int_in_range(1..=(1 << 31) - 1)?).unwrap_or(Priority::LEAST);
    }
    Ok(candidate)
}

fn local_candidate(script: &mut Unstructured<'_>) -> Result<LocalCandidate> {
    let (candidate, other) = (candidate(script)?, addr(script)?);
    // A driver's socket is of the family that it tells others.
    let base = if other.is_ipv4() == candidate.addr.is_ipv4() { other } else { candidate.addr };
    Ok(LocalCandidate { candidate, base })
}

fn description(script: &mut Unstructured<'_>) -> Result<Description> {
    let usual = script.ratio(7, 8)?;
    Ok(Description {
        ufrag: if usual { THEIR_UFRAG.to_owned() } else { script.arbitrary()? },
        password: if usual { THEIR_PASSWORD.to_owned() } else { script.arbitrary()? },
        candidates: list(script, candidate)?,
        complete: script.arbitrary()?,
        mapping: mapping(script)?,
        opening: script.arbitrary()?,
    })
}

fn signal(script: &mut Unstructured<'_>) -> Result<Signal> {
    Ok(match script.int_in_range(0..=3_u8)? {
        0 => Signal::Candidates { candidates: list(script, candidate)?, complete: script.arbitrary()? },
        1 => Signal::Opened(turn(script)?),
        2 => Signal::Cross { turn: turn(script)?, after: Duration::from_millis(script.arbitrary::<u16>()?.into()) },
        _ => Signal::Exhausted,
    })
}

fn turn(script: &mut Unstructured<'_>) -> Result<OpenTurn> {
    let round = if script.ratio(7, 8)? { script.int_in_range(0..=12)? } else { script.arbitrary()? };
    Ok(OpenTurn { round, sender: addr(script)?, receiver: addr(script)?, ttl: script.arbitrary()? })
}

/// A check of the peer, as a standard agent would send it or with something wrong.
fn request(script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const PRIORITY: u16 = 0x0024;
    const USE_CANDIDATE: u16 = 0x0025;
    const ICE_CONTROLLED: u16 = 0x8029;
    const ICE_CONTROLLING: u16 = 0x802a;
    let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
    let name = if script.ratio(7, 8)? { format!("{OUR_UFRAG}:{THEIR_UFRAG}") } else { script.arbitrary()? };
    if let Ok(name) = Username::new(&name) {
        drop(request.add_attribute(&name));
    }
    let mut add =
        |kind: u16, value: &[u8]| drop(request.add_attribute(&RawAttribute::new(AttributeType::new(kind), value)));
    if script.ratio(7, 8)? {
        add(PRIORITY, &script.arbitrary::<[u8; 4]>()?);
    }
    if script.arbitrary()? {
        add(USE_CANDIDATE, &[]);
    }
    let role = if script.arbitrary()? { ICE_CONTROLLING } else { ICE_CONTROLLED };
    add(role, &script.arbitrary::<[u8; 8]>()?);
    if script.ratio(1, 16)? {
        // Of this protocol and of others; comprehension is required below 0x8000.
        add(*script.choose(&[0x0003, 0x000d, 0x0021, 0x7fff, 0x8022, 0xffff])?, &script.arbitrary::<[u8; 4]>()?);
    }
    Ok(signed(request, if script.ratio(7, 8)? { OUR_PASSWORD } else { THEIR_PASSWORD }))
}

fn signed(mut message: MessageWriteVec, password: &str) -> Vec<u8> {
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(password.to_owned()));
    drop(message.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1));
    drop(message.add_fingerprint());
    message.finish()
}
