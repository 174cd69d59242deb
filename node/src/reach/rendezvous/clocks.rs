//! How far this machine's clock is from those of peers: a few of them are asked what time it is. What they say is told to the user where
//! something fails, and decides nothing.
//!
//! ```text
//! /keyferry/clock/1    asker: 0 u8    answerer: seconds since 1970 u64, little endian, rounded down to 30
//! ```
//! What it is not: a way to set the clock, or to find the right time.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use keyferry_net::time::UnixTime;
use libp2p::{
    StreamProtocol,
    request_response::{self, Codec, OutboundRequestId, ProtocolSupport},
};

use crate::base::clock::ClockSkew;

/// The protocol.
pub(super) const CLOCK_PROTOCOL: StreamProtocol = StreamProtocol::new("/keyferry/clock/1");
/// How exactly a node says what time it is: enough for a clock that is wrong by minutes, too little to know a machine again by it.
const STEP_SECS: u64 = 30;
/// Hosts whose clocks are known at once.
const MAX_HOSTS: usize = 8;
/// Questions that are under way at once.
const MAX_ASKED: usize = 8;
/// How long the word of a host counts.
const GOOD_FOR: Duration = Duration::from_secs(2 * 60 * 60);
/// When a host is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(50 * 60);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams of this protocol on one connection, in both directions.
const MAX_STREAMS: usize = 2;

/// The behaviour that asks and answers.
pub(super) type ClockExchange = request_response::Behaviour<ClockCodec>;

/// What it reports.
pub(super) type ClockEvent = request_response::Event<(), UnixTime>;

/// Makes the behaviour. A node that hides asks, and does not answer.
pub(super) fn behaviour(hides: bool) -> ClockExchange {
    let support = if hides { ProtocolSupport::Outbound } else { ProtocolSupport::Full };
    let config = request_response::Config::default()
        .with_request_timeout(ANSWER_TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    request_response::Behaviour::with_codec(ClockCodec, [(CLOCK_PROTOCOL, support)], config)
}

/// What a node answers at this moment.
pub(super) fn answer(now: UnixTime) -> UnixTime {
    UnixTime(now.0 - now.0 % STEP_SECS)
}

/// The clocks of peers.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// What hosts have said: one word for each, however many peers it has.
    words: HashMap<IpAddr, ClockWord>,
    asked: HashMap<OutboundRequestId, IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct ClockWord {
    /// How far this machine's clock is ahead of the host's.
    ahead_secs: i64,
    at: Instant,
}

impl Clocks {
    /// Whether a host is to be asked.
    pub(super) fn wants(&self, host: IpAddr, now: Instant) -> bool {
        let is_known = match self.words.get(&host) {
            Some(word) => now.duration_since(word.at) < ASK_AGAIN_AFTER,
            None => self.words.values().filter(|word| word.is_good(now)).count() >= MAX_HOSTS,
        };
        !is_known && self.asked.len() < MAX_ASKED && !self.asked.values().any(|asked| *asked == host)
    }

    /// Notes that a host was asked.
    pub(super) fn asked(&mut self, question: OutboundRequestId, host: IpAddr) {
        self.asked.insert(question, host);
    }

    /// Notes what a host has answered, by the clock of this machine.
    pub(super) fn answered(&mut self, question: OutboundRequestId, theirs: UnixTime, own: UnixTime, now: Instant) {
        if let Some(host) = self.asked.remove(&question) {
            self.heard(host, theirs, own, now);
        }
    }

    /// Notes that a host does not answer.
    pub(super) fn failed(&mut self, question: OutboundRequestId) {
        self.asked.remove(&question);
    }

    /// Forgets what was said: this machine's clock has been set.
    pub(super) fn on_clock_set(&mut self) {
        // An answer that is under way may have been read by either clock.
        *self = Self::default();
    }

    fn heard(&mut self, host: IpAddr, theirs: UnixTime, own: UnixTime, now: Instant) {
        self.words.retain(|_, word| word.is_good(now));
        let seconds = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
        let ahead_secs = seconds(answer(own)).saturating_sub(seconds(theirs));
        if self.words.len() < MAX_HOSTS || self.words.contains_key(&host) {
            self.words.insert(host, ClockWord { ahead_secs, at: now });
        }
    }

    /// How far this machine's clock is from that of the host in the middle; none if nobody has said anything lately.
    pub(super) fn skew(&self, now: Instant) -> Option<ClockSkew> {
        let mut words: Vec<i64> =
            self.words.values().filter(|word| word.is_good(now)).map(|word| word.ahead_secs).collect();
        words.sort_unstable();
        // Of an even number, the word that is nearer to the truth of this machine.
        let middle = words.get(words.len() / 2).into_iter().chain(words.get((words.len().max(1) - 1) / 2));
        let ahead_secs = *middle.min_by_key(|ahead| ahead.unsigned_abs())?;
        Some(ClockSkew { ahead_secs, hosts: words.len() })
    }
}

impl ClockWord {
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.at) < GOOD_FOR
    }
}

/// The codec.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClockCodec;

impl Codec for ClockCodec {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = UnixTime;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()> {
        let mut byte = [0xff];
        io.read_exact(&mut byte).await?;
        match byte {
            [0] => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<UnixTime> {
        let mut bytes = [0; 8];
        io.read_exact(&mut bytes).await?;
        Ok(UnixTime(u64::from_le_bytes(bytes)))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        (): (),
    ) -> io::Result<()> {
        io.write_all(&[0]).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        time: UnixTime,
    ) -> io::Result<()> {
        io.write_all(&time.0.to_le_bytes()).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn host(number: usize) -> IpAddr {
        IpAddr::from([198, 51, 100, u8::try_from(number).expect("few hosts")])
    }

    fn heard(ahead: &[i64], now: Instant) -> Clocks {
        let mut clocks = Clocks::default();
        for (number, ahead) in ahead.iter().enumerate() {
            clocks.heard(host(number), UnixTime(NOW.0.checked_add_signed(-ahead).expect("a time")), NOW, now);
        }
        clocks
    }

    #[test]
    fn a_clock_is_as_wrong_as_the_host_in_the_middle_says() {
        let now = Instant::now();
        assert_eq!(Clocks::default().skew(now), None);
        for (words, expected) in [
            (&[7_200][..], 7_200),
            (&[7_200, 7_230, 7_170], 7_200),
            (&[0, 0, 1_000_000], 0),
            (&[0, 7_200], 0),
            (&[-7_200, 0, 30, -30], 0),
        ] {
            assert_eq!(
                heard(words, now).skew(now),
                Some(ClockSkew { ahead_secs: expected, hosts: words.len() }),
                "{words:?}"
            );
        }
    }

    #[test]
    fn a_host_has_one_word_which_counts_for_a_time_and_until_the_clock_is_set() {
        let now = Instant::now();
        let mut clocks = heard(&[60], now);
        assert!(
            !clocks.wants(host(0), now) && clocks.wants(host(1), now) && clocks.wants(host(0), now + ASK_AGAIN_AFTER)
        );
        clocks.heard(host(0), NOW, NOW, now);
        assert_eq!(clocks.skew(now), Some(ClockSkew { ahead_secs: 0, hosts: 1 }));
        assert_eq!(clocks.skew(now + GOOD_FOR), None);
        clocks.on_clock_set();
        assert!(clocks.skew(now).is_none() && clocks.wants(host(0), now));
    }

    #[test]
    fn no_more_hosts_are_asked_than_count() {
        let now = Instant::now();
        let mut clocks = heard(&[0; MAX_HOSTS], now);
        assert!(!clocks.wants(host(MAX_HOSTS), now));
        clocks.heard(host(MAX_HOSTS), UnixTime(0), NOW, now);
        assert_eq!(clocks.skew(now), Some(ClockSkew { ahead_secs: 0, hosts: MAX_HOSTS }));
    }

    proptest! {
        #[test]
        fn fewer_liars_than_half_move_no_clock_beyond_what_the_others_say(
            honest in proptest::collection::vec(-60_i64..=60, 4..=5),
            lies in proptest::collection::vec(any::<u64>(), 0..=3),
        ) {
            let now = Instant::now();
            let mut clocks = heard(&honest, now);
            for (number, lie) in lies.iter().enumerate() {
                clocks.heard(host(honest.len() + number), UnixTime(*lie), NOW, now);
            }
            let ahead = clocks.skew(now).expect("some have spoken").ahead_secs;
            prop_assert!(ahead.abs() <= 90, "{ahead}");
        }
    }
}
