//! TCP as a host of the virtual network speaks it: one listening port, connections that leave from it or from any other,
//! simultaneous open, unique 4-tuples, repeated SYNs, refusal, and a stream that survives loss and reordering.
//!
//! What it is not: congestion control, windows, or half-closed connections, on which nothing here depends.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use super::segment::{FULL_TTL, Flags, Segment};
use crate::ConnectFailure;

/// The waits before SYN and SYN-ACK are repeated, as Linux has them: after 1 s, after 2 s more, and so on.
const SYN_RETRY: Duration = Duration::from_secs(1);
/// The least wait before data is repeated.
const DATA_RETRY: Duration = Duration::from_millis(200);
/// Repetitions after which a connection is dead.
const MAX_TRIES: u32 = 6;

/// The two ends of a connection, which name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// What the program on the host learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TcpEvent {
    Connected(Tuple),
    Failed(Tuple, ConnectFailure),
    Accepted(Tuple),
    Bytes(Tuple, Vec<u8>),
    Closed(Tuple),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
}

#[derive(Debug)]
struct Socket {
    state: State,
    listener: bool,
    isn: u64,
    /// The next byte that is due from the other end.
    expected: u64,
    /// All that was ever written, whose first byte has the number `isn + 1`.
    written: Vec<u8>,
    acked: u64,
    out_of_order: BTreeMap<u64, (Vec<u8>, bool)>,
    fin: bool,
    /// The program has closed it.
    orphan: bool,
    peer_closed: bool,
    retry_at: Option<Duration>,
    tries: u32,
    started: Duration,
    data_retry: Duration,
}

impl Socket {
    fn new(state: State, isn: u64, now: Duration) -> Self {
        Self {
            state,
            listener: false,
            isn,
            expected: 0,
            written: Vec::new(),
            acked: isn,
            out_of_order: BTreeMap::new(),
            fin: false,
            orphan: false,
            peer_closed: false,
            retry_at: Some(now + SYN_RETRY),
            tries: 0,
            started: now,
            data_retry: DATA_RETRY,
        }
    }

    fn end(&self) -> u64 {
        self.isn + 1 + self.written.len() as u64 + u64::from(self.fin)
    }
}

/// The TCP of one host.
#[derive(Debug)]
pub(super) struct Stack {
    port: u16,
    sockets: BTreeMap<Tuple, Socket>,
    next_any_port: u16,
    outgoing: VecDeque<Segment>,
    events: VecDeque<TcpEvent>,
    /// Does not answer anything: a host that has gone.
    pub(super) silent: bool,
}

impl Stack {
    /// A host that listens on `port`.
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            sockets: BTreeMap::new(),
            next_any_port: 40_000,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            silent: false,
        }
    }

    pub(super) fn any_port(&mut self) -> u16 {
        self.next_any_port += 1;
        self.next_any_port
    }

    /// Sockets that the program on the host has.
    pub(super) fn open_sockets(&self) -> usize {
        let is_of_program =
            |socket: &&Socket| !(socket.orphan || socket.listener && socket.state == State::SynReceived);
        self.sockets.values().filter(is_of_program).count()
    }

    /// Begins a connection; `ttl` is that of the first SYN only.
    pub(super) fn connect(&mut self, now: Duration, tuple: Tuple, ttl: u8) -> Result<(), ConnectFailure> {
        if self.sockets.contains_key(&tuple) {
            return Err(ConnectFailure::AddrInUse);
        }
        let isn = initial_number(now);
        self.sockets.insert(tuple, Socket::new(State::SynSent, isn, now));
        self.outgoing.push_back(Segment::syn(tuple.local, tuple.remote, isn, ttl));
        Ok(())
    }

    pub(super) fn write(&mut self, now: Duration, tuple: Tuple, data: &[u8]) {
        let Some(socket) = self.sockets.get_mut(&tuple).filter(|socket| !socket.orphan) else { return };
        let start = socket.end();
        socket.written.extend_from_slice(data);
        if socket.state == State::Established {
            socket.retry_at.get_or_insert(now + socket.data_retry);
            let segment = ack(tuple, start, socket.expected, data.to_vec(), false);
            self.outgoing.push_back(segment);
        }
    }

    /// Closes a connection; in SYN_SENT this sends nothing.
    pub(super) fn close(&mut self, now: Duration, tuple: Tuple) {
        let Some(socket) = self.sockets.get_mut(&tuple) else { return };
        if socket.state == State::SynSent {
            self.sockets.remove(&tuple);
            return;
        }
        if !socket.orphan {
            let seq = socket.end();
            (socket.fin, socket.orphan) = (true, true);
            socket.retry_at.get_or_insert(now + socket.data_retry);
            let segment = ack(tuple, seq, socket.expected, Vec::new(), true);
            self.outgoing.push_back(segment);
        }
    }

    /// Closes a connection as `SO_LINGER` of 0 does: by RST, and nothing stays; in SYN_SENT this sends nothing.
    pub(super) fn abort(&mut self, tuple: Tuple) {
        if let Some(socket) = self.sockets.remove(&tuple).filter(|socket| socket.state != State::SynSent) {
            let rst = ack(tuple, socket.end(), socket.expected, Vec::new(), false);
            self.outgoing.push_back(Segment { flags: Flags::Rst, ..rst });
        }
    }

    pub(super) fn poll_outgoing(&mut self) -> Option<Segment> {
        self.outgoing.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<TcpEvent> {
        self.events.pop_front()
    }

    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.sockets.values().filter_map(|socket| socket.retry_at).min()
    }

    /// Repeats what has not been acknowledged in time.
    pub(super) fn retry(&mut self, now: Duration) {
        let due = |(_, socket): &(&Tuple, &mut Socket)| socket.retry_at.is_some_and(|at| at <= now);
        let mut dead = Vec::new();
        for (tuple, socket) in self.sockets.iter_mut().filter(due) {
            socket.tries += 1;
            if socket.tries > MAX_TRIES {
                dead.push(*tuple);
                continue;
            }
            let wait = if socket.state == State::Established { socket.data_retry } else { SYN_RETRY };
            socket.retry_at = Some(now + wait * 2_u32.pow(socket.tries));
            self.outgoing.push_back(match socket.state {
                State::SynSent => Segment::syn(tuple.local, tuple.remote, socket.isn, FULL_TTL),
                State::SynReceived => syn_ack(*tuple, socket),
                State::Established => {
                    let skip = usize::try_from(socket.acked - socket.isn - 1).unwrap().min(socket.written.len());
                    ack(*tuple, socket.acked, socket.expected, socket.written[skip..].to_vec(), socket.fin)
                }
            });
        }
        for tuple in dead {
            self.lose(tuple, ConnectFailure::TimedOut);
        }
    }

    /// Takes in a segment that has reached the host.
    pub(super) fn receive(&mut self, now: Duration, segment: Segment) {
        if self.silent {
            return;
        }
        let tuple = Tuple { local: segment.to, remote: segment.from };
        match (self.sockets.get(&tuple).map(|socket| socket.state), segment.flags) {
            (None, Flags::Syn) if segment.to.port() == self.port => self.listen(now, tuple, &segment),
            (None, Flags::Rst) => {}
            (None, _) => self.outgoing.push_back(segment.refusal()),
            (Some(State::SynSent), _) => self.in_syn_sent(now, tuple, segment),
            (Some(_), Flags::Rst) => self.reset(tuple, &segment),
            (Some(State::SynReceived), _) => self.in_syn_received(now, tuple, segment),
            (Some(State::Established), _) => self.in_established(now, tuple, segment),
        }
    }

    fn listen(&mut self, now: Duration, tuple: Tuple, segment: &Segment) {
        let mut socket = Socket::new(State::SynReceived, initial_number(now), now);
        (socket.listener, socket.expected) = (true, segment.seq + 1);
        self.outgoing.push_back(syn_ack(tuple, &socket));
        self.sockets.insert(tuple, socket);
    }

    fn in_syn_sent(&mut self, now: Duration, tuple: Tuple, segment: Segment) {
        let socket = self.sockets.get_mut(&tuple).unwrap();
        let acks_ours = segment.ack == socket.isn + 1;
        match segment.flags {
            Flags::Rst if acks_ours => self.lose(tuple, ConnectFailure::Refused),
            // Simultaneous open: the very same initial number answers.
            Flags::Syn => {
                (socket.state, socket.expected) = (State::SynReceived, segment.seq + 1);
                self.outgoing.push_back(syn_ack(tuple, socket));
            }
            Flags::SynAck if acks_ours => {
                socket.expected = segment.seq + 1;
                self.establish(now, tuple);
                self.acknowledge(tuple);
            }
            Flags::SynAck | Flags::Ack => self.outgoing.push_back(segment.refusal()),
            Flags::Rst => {}
        }
    }

    fn in_syn_received(&mut self, now: Duration, tuple: Tuple, segment: Segment) {
        let socket = &self.sockets[&tuple];
        match segment.flags {
            Flags::Syn if segment.seq + 1 == socket.expected => {
                let segment = syn_ack(tuple, socket);
                self.outgoing.push_back(segment);
            }
            Flags::SynAck | Flags::Ack if segment.ack > socket.isn => {
                self.establish(now, tuple);
                self.in_established(now, tuple, segment);
            }
            _ => {}
        }
    }

    fn establish(&mut self, now: Duration, tuple: Tuple) {
        let socket = self.sockets.get_mut(&tuple).unwrap();
        socket.state = State::Established;
        socket.acked = socket.acked.max(socket.isn + 1);
        // A round trip is known only from a SYN that was sent once (Karn's rule).
        let is_measured = socket.tries == 0;
        socket.data_retry = if is_measured { DATA_RETRY.max((now - socket.started) * 2) } else { SYN_RETRY };
        (socket.tries, socket.retry_at) = (0, None);
        if socket.orphan {
            return;
        }
        self.events.push_back(if socket.listener { TcpEvent::Accepted(tuple) } else { TcpEvent::Connected(tuple) });
        if !socket.written.is_empty() {
            socket.retry_at = Some(now + socket.data_retry);
            let segment = ack(tuple, socket.isn + 1, socket.expected, socket.written.clone(), false);
            self.outgoing.push_back(segment);
        }
    }

    fn in_established(&mut self, now: Duration, tuple: Tuple, segment: Segment) {
        let socket = self.sockets.get_mut(&tuple).unwrap();
        if segment.flags == Flags::Syn {
            return self.acknowledge(tuple);
        }
        if segment.ack > socket.acked {
            socket.acked = segment.ack;
            socket.tries = 0;
            socket.retry_at = (socket.acked < socket.end()).then_some(now + socket.data_retry);
        }
        if segment.flags == Flags::SynAck {
            return self.acknowledge(tuple);
        }
        if segment.data.is_empty() && !segment.fin {
            return;
        }
        if socket.orphan && !segment.data.is_empty() {
            self.sockets.remove(&tuple);
            return self.outgoing.push_back(segment.refusal());
        }
        let known = socket.out_of_order.entry(segment.seq).or_default();
        if segment.data.len() >= known.0.len() {
            *known = (segment.data, segment.fin || known.1);
        }
        self.deliver(tuple);
        self.acknowledge(tuple);
    }

    /// Hands over what is in order now.
    fn deliver(&mut self, tuple: Tuple) {
        let socket = self.sockets.get_mut(&tuple).unwrap();
        let (mut bytes, mut closes) = (Vec::new(), false);
        while let Some((seq, (data, fin))) = socket.out_of_order.pop_first() {
            if seq > socket.expected {
                socket.out_of_order.insert(seq, (data, fin));
                break;
            }
            let known = usize::try_from(socket.expected - seq).unwrap();
            if let Some(fresh) = data.get(known..) {
                bytes.extend_from_slice(fresh);
                socket.expected += fresh.len() as u64;
                if fin && !socket.peer_closed {
                    (socket.peer_closed, socket.expected) = (true, socket.expected + 1);
                    closes = !socket.orphan;
                }
            }
        }
        if !bytes.is_empty() {
            self.events.push_back(TcpEvent::Bytes(tuple, bytes));
        }
        if closes {
            self.events.push_back(TcpEvent::Closed(tuple));
        }
    }

    fn acknowledge(&mut self, tuple: Tuple) {
        let socket = &self.sockets[&tuple];
        let segment = ack(tuple, socket.end(), socket.expected, Vec::new(), false);
        self.outgoing.push_back(segment);
    }

    fn reset(&mut self, tuple: Tuple, segment: &Segment) {
        let socket = &self.sockets[&tuple];
        if segment.seq == socket.expected || segment.ack == socket.end() {
            self.lose(tuple, ConnectFailure::Refused);
        }
    }

    fn lose(&mut self, tuple: Tuple, reason: ConnectFailure) {
        let Some(socket) = self.sockets.remove(&tuple) else { return };
        match socket.state {
            _ if socket.orphan => {}
            State::Established => self.events.push_back(TcpEvent::Closed(tuple)),
            _ if socket.listener => {}
            _ => self.events.push_back(TcpEvent::Failed(tuple, reason)),
        }
    }
}

/// Initial sequence numbers grow with time (RFC 6528), so that a later connection has a later one.
fn initial_number(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap() * 16 + 1_000_000
}

fn syn_ack(tuple: Tuple, socket: &Socket) -> Segment {
    Segment { flags: Flags::SynAck, seq: socket.isn, ..ack(tuple, 0, socket.expected, Vec::new(), false) }
}

fn ack(tuple: Tuple, seq: u64, ack: u64, data: Vec<u8>, fin: bool) -> Segment {
    Segment { from: tuple.local, to: tuple.remote, flags: Flags::Ack, seq, ack, data, fin, ttl: FULL_TTL }
}
