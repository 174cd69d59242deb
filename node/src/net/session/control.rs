//! The control stream: hello both ways, pings, and the goodbye.
//!
//! What it is not: the file transfers beside it.

use std::{io, pin::pin, sync::Arc, time::Duration};

use keyferry_proto::message::{ControlMessage, FEATURE_PROTOCOLS, Goodbye, Hello, Request, VERSION};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, interval_at, sleep_until, timeout},
};

use super::{
    counters::{SessionCounters, SessionTraffic},
    driver::MAX_OUTBOUND_STREAMS,
    error::{Breakage, ProtocolError, SessionEnd, SessionError},
    messages::{ReadError, StreamMessageReader, read_message, write_message},
    silence::{Look, MAX_MISSED_PINGS, MovedBytes, Pings, Silence},
};
use crate::net::trouble::{Trouble, Troubles};

/// Round trips that may be measured at once; whoever asks for one more waits.
pub(super) const MAX_MEASURED: usize = 4;

/// How long the goodbye may wait.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What this node says of itself.
pub(super) fn our_hello() -> Hello {
    Hello { version: VERSION, features: FEATURE_PROTOCOLS, agent: format!("keyferry/{}", env!("CARGO_PKG_VERSION")) }
}

/// Says hello on a stream that this side has opened.
pub(super) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), SessionError> {
    write_message(stream, &Request::Control(our_hello())).await.map_err(broken)
}

/// Waits for the hello on the first stream that the peer has opened, and answers it.
pub(super) async fn welcome(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Hello, SessionError> {
    match read_message(stream).await.map_err(wrong)? {
        Some(Request::Control(hello)) => {
            write_message(stream, &ControlMessage::Hello(our_hello())).await.map_err(broken)?;
            check(&hello)?;
            Ok(hello)
        }
        Some(_) => Err(ProtocolError::NoControl.into()),
        None => Err(SessionError::Ended(SessionEnd::ClosedByPeer { reason: None })),
    }
}

/// The peer speaks this version of the protocol, which its hello names.
struct OtherVersion(u16);

fn check(hello: &Hello) -> Result<(), OtherVersion> {
    match hello.version {
        VERSION => Ok(()),
        theirs => Err(OtherVersion(theirs)),
    }
}

impl From<OtherVersion> for SessionError {
    fn from(OtherVersion(theirs): OtherVersion) -> Self {
        Self::Version { ours: VERSION, theirs }
    }
}

impl From<OtherVersion> for SessionEnd {
    fn from(OtherVersion(theirs): OtherVersion) -> Self {
        Breakage::Version { ours: VERSION, theirs }.into()
    }
}

fn broken(error: io::Error) -> SessionError {
    SessionError::Io(Arc::new(error))
}

fn wrong(error: ReadError) -> SessionError {
    match error {
        ReadError::Io(error) => broken(error),
        ReadError::Frame(error) => ProtocolError::from(error).into(),
        ReadError::Message(error) => ProtocolError::from(error).into(),
    }
}

/// The end of a session whose peer broke the protocol.
fn end_of(error: impl Into<ProtocolError>) -> SessionEnd {
    Breakage::Protocol(error.into()).into()
}

/// How this side wants to end the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closing {
    /// In order, with a reason for the peer.
    Goodbye(Goodbye),
    /// At once: nothing gets through to the peer any more.
    BreakOff(&'static str),
}

/// What the task of the control stream listens to and tells.
pub(super) struct ControlLinks {
    /// This side wants to close; a sender that is gone means that nobody has a handle any more.
    pub(super) close_asked: watch::Receiver<Option<Closing>>,
    /// Somebody wants to know the round trip.
    pub(super) measure: mpsc::Receiver<oneshot::Sender<Duration>>,
    /// The places of outgoing streams: while one is taken, this side waits for something.
    pub(super) places: Arc<Semaphore>,
    /// Tells the driver to end the session.
    pub(super) end: watch::Sender<Option<SessionEnd>>,
    /// [`PING_INTERVAL`](super::PING_INTERVAL), save in tests.
    pub(super) ping_interval: Duration,
    pub(super) traffic: Arc<SessionTraffic>,
    pub(super) counters: Arc<SessionCounters>,
    /// Told when the path may be dead, and when it is not after all.
    pub(super) doubted: watch::Sender<bool>,
    pub(super) troubles: Troubles,
}

/// Runs the control stream after this side's hello: waits for the peer's, no longer than `limit`, and goes on as [`run`].
pub(super) async fn run_greeted<S: AsyncRead + AsyncWrite>(
    stream: S,
    links: ControlLinks,
    heard: watch::Sender<Option<Hello>>,
    limit: Duration,
) {
    run_after(stream, links, Some((heard, limit))).await;
}

/// Runs the control stream after both hellos until the session ends, and tells the driver why.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(stream: S, links: ControlLinks) {
    run_after(stream, links, None).await;
}

async fn run_after<S: AsyncRead + AsyncWrite>(
    stream: S,
    links: ControlLinks,
    awaited: Option<(watch::Sender<Option<Hello>>, Duration)>,
) {
    let (reader, writer) = split(stream);
    let silence = Silence::new(Instant::now());
    let ControlLinks { mut close_asked, measure, places, end, ping_interval, traffic, counters, doubted, troubles } =
        links;
    let watch = SilenceWatch { silence, traffic, places, doubted, troubles };
    let mut control =
        Control { reader, writer, messages: StreamMessageReader::new::<ControlMessage>(), measure, watch };
    let why = tokio::select! {
        biased;
        why = asked(&mut close_asked) => match why {
            Closing::Goodbye(why) => {
                let goodbye = ControlMessage::Goodbye(why);
                if timeout(GOODBYE_TIMEOUT, write_message(&mut control.writer, &goodbye)).await.is_err() {
                    tracing::debug!("the peer does not take in the goodbye");
                }
                SessionEnd::ClosedHere
            }
            Closing::BreakOff(why) => Breakage::BrokenOff(why).into(),
        },
        why = async {
            if let Some((heard, limit)) = awaited
                && let Err(why) = control.hear_hello(&heard, limit).await
            {
                return why;
            }
            control.talk(ping_interval).await
        } => {
            match &why {
                SessionEnd::Silent(_) => counters.silent_peers.add_one(),
                SessionEnd::Broken(error) => {
                    tracing::debug!(%error, "the control stream went wrong");
                    counters.protocol_errors.add_one();
                }
                SessionEnd::ClosedHere | SessionEnd::ClosedByPeer { .. } => {}
            }
            why
        }
    };
    end.send_replace(Some(why));
}

async fn asked(close_asked: &mut watch::Receiver<Option<Closing>>) -> Closing {
    let finished = Closing::Goodbye(Goodbye::Finished);
    match close_asked.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or(finished),
        Err(_) => finished,
    }
}

struct Control<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    messages: StreamMessageReader,
    measure: mpsc::Receiver<oneshot::Sender<Duration>>,
    watch: SilenceWatch,
}

/// Looks for silence while something is under way.
struct SilenceWatch {
    silence: Silence,
    traffic: Arc<SessionTraffic>,
    places: Arc<Semaphore>,
    doubted: watch::Sender<bool>,
    troubles: Troubles,
}

impl<S: AsyncRead + AsyncWrite> Control<S> {
    /// Waits for the peer's hello, which comes before anything else: a round trip after this side's, with no data before it.
    async fn hear_hello(&mut self, heard: &watch::Sender<Option<Hello>>, limit: Duration) -> Result<(), SessionEnd> {
        let greeted = Instant::now();
        let message = timeout(limit, self.messages.next(&mut self.reader)).await;
        match message.map_err(|_| SessionEnd::Silent(limit))? {
            Ok(Some(ControlMessage::Hello(hello))) => {
                check(&hello)?;
                self.watch.silence.measured(greeted.elapsed());
                heard.send_replace(Some(hello));
                Ok(())
            }
            Ok(Some(ControlMessage::Goodbye(why))) => Err(SessionEnd::ClosedByPeer { reason: Some(why) }),
            Ok(Some(got)) => Err(end_of(ProtocolError::NoHello { got })),
            Ok(None) | Err(ReadError::Io(_)) => Err(SessionEnd::ClosedByPeer { reason: None }),
            Err(ReadError::Frame(error)) => Err(end_of(error)),
            Err(ReadError::Message(error)) => Err(end_of(error)),
        }
    }

    /// Answers pings and sends some, until the peer says goodbye, goes silent or says something wrong.
    async fn talk(&mut self, ping_interval: Duration) -> SessionEnd {
        let mut ticks = interval_at(Instant::now() + ping_interval, ping_interval);
        let limit = ping_interval * (MAX_MISSED_PINGS + 1);
        let mut pings = Pings::default();
        let mut measured: Vec<Measured> = Vec::new();
        loop {
            let answer = tokio::select! {
                message = self.messages.next(&mut self.reader) => match message {
                    Ok(Some(ControlMessage::Ping(number))) => ControlMessage::Pong(number),
                    Ok(Some(ControlMessage::Pong(number))) => {
                        if let Some(round_trip) = pings.answered(number) {
                            self.watch.silence.measured(round_trip);
                        }
                        answer_measured(&mut measured, number);
                        continue;
                    }
                    Ok(Some(ControlMessage::Goodbye(why))) => return SessionEnd::ClosedByPeer { reason: Some(why) },
                    Ok(Some(ControlMessage::Hello(_))) => return end_of(ProtocolError::SecondHello),
                    Ok(None) | Err(ReadError::Io(_)) => return SessionEnd::ClosedByPeer { reason: None },
                    Err(ReadError::Frame(error)) => return end_of(error),
                    Err(ReadError::Message(error)) => return end_of(error),
                },
                _ = ticks.tick() => match pings.next(self.watch.traffic.received()) {
                    Some(number) => ControlMessage::Ping(number),
                    None => return SessionEnd::Silent(limit),
                },
                () = self.watch.until_next_look() => match self.watch.look() {
                    Look::Ask => ControlMessage::Ping(pings.extra()),
                    Look::Well | Look::Doubt => continue,
                    Look::Dead => return self.watch.found_dead(),
                },
                Some(reply) = self.measure.recv(), if measured.len() < MAX_MEASURED => {
                    let number = pings.extra();
                    measured.push(Measured { number, since: Instant::now(), reply });
                    ControlMessage::Ping(number)
                }
            };
            if let Err(end) = self.say(&answer, limit).await {
                return end;
            }
            measured.retain(|one| !one.reply.is_closed());
        }
    }

    /// Writes a message, and goes on looking for silence: if the path is dead, the message waits behind what was sent before.
    async fn say(&mut self, message: &ControlMessage, limit: Duration) -> Result<(), SessionEnd> {
        let Self { writer, watch, .. } = self;
        let mut written = pin!(timeout(limit, write_message(writer, message)));
        loop {
            tokio::select! {
                written = &mut written => return match written {
                    Ok(Ok(())) => Ok(()),
                    // Whatever ended the stream, reading tells: the peer's goodbye may still be unread.
                    Ok(Err(_)) => Ok(()),
                    Err(_) => Err(SessionEnd::Silent(limit)),
                },
                () = watch.until_next_look() => if watch.look() == Look::Dead {
                    return Err(watch.found_dead());
                },
            }
        }
    }
}

impl SilenceWatch {
    fn until_next_look(&self) -> impl Future<Output = ()> + use<> {
        sleep_until(self.silence.next_look(self.is_waiting()))
    }

    /// Looks for silence. Those who hold the session are told whether the path is doubted, and those who hold anything else that may
    /// be dead then.
    fn look(&mut self) -> Look {
        let (received, sent) = (self.traffic.received(), self.traffic.sent());
        let moved = MovedBytes { received, sent, is_blocked: self.traffic.is_blocked() };
        let look = self.silence.look(Instant::now(), self.is_waiting(), moved);
        let is_doubted = self.silence.is_doubted();
        let is_new = self.doubted.send_if_modified(|before| std::mem::replace(before, is_doubted) != is_doubted);
        if is_new && is_doubted {
            self.troubles.tell(Trouble::SilentSession);
        }
        look
    }

    fn found_dead(&self) -> SessionEnd {
        SessionEnd::Silent(self.silence.patience() * 2)
    }

    /// Whether this side has a request open.
    fn is_waiting(&self) -> bool {
        self.places.available_permits() < MAX_OUTBOUND_STREAMS
    }
}

/// A ping whose round trip somebody wants to know.
struct Measured {
    number: u64,
    since: Instant,
    reply: oneshot::Sender<Duration>,
}

fn answer_measured(measured: &mut Vec<Measured>, number: u64) {
    if let Some(index) = measured.iter().position(|one| one.number == number) {
        let one = measured.swap_remove(index);
        // Whoever asked may have given up.
        let _ = one.reply.send(one.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::message::Message;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::{
        super::{PING_INTERVAL, silence::LOOK_EVERY},
        *,
    };
    use crate::net::trouble::LEAST_PATIENCE;

    struct RunningControl {
        peer: tokio::io::DuplexStream,
        close: watch::Sender<Option<Closing>>,
        measure: mpsc::Sender<oneshot::Sender<Duration>>,
        places: Arc<Semaphore>,
        end: watch::Receiver<Option<SessionEnd>>,
        doubted: watch::Receiver<bool>,
        troubles: watch::Receiver<Option<Trouble>>,
    }

    const SHORT: Duration = Duration::from_millis(20);

    fn start(ping_interval: Duration) -> RunningControl {
        start_as(ping_interval, None)
    }

    fn start_as(ping_interval: Duration, awaited: Option<(watch::Sender<Option<Hello>>, Duration)>) -> RunningControl {
        let (ours, peer) = duplex(256);
        start_on(ours, peer, ping_interval, awaited)
    }

    fn start_on(
        ours: impl AsyncRead + AsyncWrite + Send + 'static,
        peer: tokio::io::DuplexStream,
        ping_interval: Duration,
        awaited: Option<(watch::Sender<Option<Hello>>, Duration)>,
    ) -> RunningControl {
        let (close, close_asked) = watch::channel(None);
        let (end_sender, end) = watch::channel(None);
        let (measure, measure_asked) = mpsc::channel(MAX_MEASURED);
        let places = Arc::new(Semaphore::new(MAX_OUTBOUND_STREAMS));
        let (doubted_sender, doubted) = watch::channel(false);
        let troubles = Troubles::default();
        let told = troubles.hear();
        let links = ControlLinks {
            close_asked,
            measure: measure_asked,
            places: places.clone(),
            end: end_sender,
            ping_interval,
            traffic: Arc::default(),
            counters: Arc::default(),
            doubted: doubted_sender,
            troubles,
        };
        tokio::spawn(run_after(ours, links, awaited));
        RunningControl { peer, close, measure, places, end, doubted, troubles: told }
    }

    async fn ended(running: &mut RunningControl) -> SessionEnd {
        running.end.wait_for(Option::is_some).await.expect("a reason").clone().expect("a reason")
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_goes_silent_in_the_middle_of_an_answer_is_doubted_and_then_found_dead_early() {
        let mut running = start(PING_INTERVAL);
        let _waiting = running.places.clone().try_acquire_owned().expect("a place");
        let Ok(Some(ControlMessage::Ping(number))) = read_message(&mut running.peer).await else { panic!("no ping") };
        write_message(&mut running.peer, &ControlMessage::Pong(number)).await.expect("written");
        let answered = Instant::now();

        let told = running.troubles.changed().await;
        assert!(told.is_ok() && *running.doubted.borrow());
        assert!(matches!(ended(&mut running).await, SessionEnd::Silent(after) if after == LEAST_PATIENCE * 2));
        assert!(answered.elapsed() <= LEAST_PATIENCE * 2 + LOOK_EVERY * 2, "{:?}", answered.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_hello_of_the_peer_tells_how_long_the_way_is() {
        let (heard, _hello) = watch::channel(None);
        let (mut running, begin) = (start_as(PING_INTERVAL, Some((heard, PING_INTERVAL))), Instant::now());
        tokio::time::sleep(Duration::from_millis(500)).await;
        write_message(&mut running.peer, &ControlMessage::Hello(our_hello())).await.expect("written");
        let _waiting = running.places.clone().try_acquire_owned().expect("a place");

        running.troubles.changed().await.expect("doubted");

        // Four round trips, with no pong that would have told.
        assert!((Duration::from_secs(2)..Duration::from_secs(3)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_goodbye_that_comes_when_nothing_can_be_written_any_more_is_heard() {
        let ((lost, gone), (ours, peer)) = (duplex(1), duplex(256));
        drop(gone);
        let mut running = start_on(tokio::io::join(ours, lost), peer, PING_INTERVAL, None);
        let (reply, _answer) = oneshot::channel();
        running.measure.send(reply).await.expect("asked");
        while running.measure.capacity() < MAX_MEASURED {
            tokio::task::yield_now().await;
        }

        write_message(&mut running.peer, &ControlMessage::Goodbye(Goodbye::Busy)).await.expect("written");

        let end = ended(&mut running).await;
        assert!(matches!(end, SessionEnd::ClosedByPeer { reason: Some(Goodbye::Busy) }), "{end:?}");
    }

    #[tokio::test]
    async fn a_round_trip_is_measured_when_somebody_asks() {
        let mut running = start(PING_INTERVAL);
        let (reply, answer) = oneshot::channel();
        running.measure.send(reply).await.expect("asked");
        let Ok(Some(ControlMessage::Ping(number))) = read_message(&mut running.peer).await else { panic!("no ping") };
        write_message(&mut running.peer, &ControlMessage::Pong(number)).await.expect("written");
        assert!(answer.await.expect("a round trip") < PING_INTERVAL);
    }

    #[tokio::test]
    async fn a_session_that_is_broken_off_sends_nothing_more() {
        let mut running = start(PING_INTERVAL);
        running.close.send_replace(Some(Closing::BreakOff("gone")));
        assert!(matches!(ended(&mut running).await, SessionEnd::Broken(Breakage::BrokenOff("gone"))));
        let said: Option<ControlMessage> = read_message(&mut running.peer).await.expect("an end");
        assert_eq!(said, None);
    }

    #[tokio::test]
    async fn a_peer_that_answers_no_ping_is_dead() {
        let begin = Instant::now();
        let mut running = start(SHORT);
        assert!(matches!(ended(&mut running).await, SessionEnd::Silent(after) if after == SHORT * 3));
        assert!(begin.elapsed() >= SHORT * 3);
    }

    #[tokio::test]
    async fn pings_are_answered() {
        let mut running = start(PING_INTERVAL);
        for number in [1, u64::MAX] {
            write_message(&mut running.peer, &ControlMessage::Ping(number)).await.expect("written");
            let answer = read_message(&mut running.peer).await.expect("a message");
            assert_eq!(answer, Some(ControlMessage::Pong(number)));
        }
    }

    #[tokio::test]
    async fn a_peer_that_asks_and_never_reads_cannot_hold_the_session() {
        let mut running = start(SHORT);
        while write_message(&mut running.peer, &ControlMessage::Ping(1)).await.is_ok() {}
        assert!(matches!(ended(&mut running).await, SessionEnd::Silent(after) if after == SHORT * 3));
    }

    #[tokio::test]
    async fn the_reason_of_a_goodbye_goes_across() {
        let (mut left, mut right) = (start(PING_INTERVAL), start(PING_INTERVAL));
        left.close.send_replace(Some(Closing::Goodbye(Goodbye::Stopping)));
        let said: Option<ControlMessage> = read_message(&mut left.peer).await.expect("a message");
        write_message(&mut right.peer, &said.expect("a goodbye")).await.expect("written");
        assert!(matches!(ended(&mut left).await, SessionEnd::ClosedHere));
        assert!(matches!(ended(&mut right).await, SessionEnd::ClosedByPeer { reason: Some(Goodbye::Stopping) }));
    }

    #[tokio::test]
    async fn garbage_or_a_second_hello_ends_the_session() {
        for bytes in [vec![0xff; 64], ControlMessage::Hello(our_hello()).to_frame()] {
            let mut running = start(PING_INTERVAL);
            running.peer.write_all(&bytes).await.expect("written");
            assert!(matches!(ended(&mut running).await, SessionEnd::Broken(_)));
        }
    }

    #[tokio::test]
    async fn a_greeted_peer_has_to_say_hello_first_in_this_version_and_in_time() {
        let newer = Hello { version: VERSION + 1, ..our_hello() };
        let firsts = [
            Some(ControlMessage::Hello(our_hello())),
            Some(ControlMessage::Hello(newer)),
            Some(ControlMessage::Pong(1)),
            Some(ControlMessage::Goodbye(Goodbye::Busy)),
            None,
        ];
        let mut ends = Vec::new();
        for first in firsts {
            let (heard, hello) = watch::channel(None);
            let mut running = start_as(PING_INTERVAL, Some((heard, SHORT)));
            if let Some(first) = first {
                let messages = [first.to_frame(), ControlMessage::Goodbye(Goodbye::Stopping).to_frame()].concat();
                running.peer.write_all(&messages).await.expect("written");
            }
            ends.push((ended(&mut running).await, hello.borrow().is_some()));
        }
        assert!(matches!(ends[0], (SessionEnd::ClosedByPeer { reason: Some(Goodbye::Stopping) }, true)), "{ends:?}");
        assert!(
            matches!(&ends[1], (SessionEnd::Broken(Breakage::Version { theirs, .. }), false) if *theirs == VERSION + 1),
            "{ends:?}"
        );
        assert!(
            matches!(&ends[2], (SessionEnd::Broken(Breakage::Protocol(ProtocolError::NoHello { .. })), false)),
            "{ends:?}"
        );
        assert!(matches!(ends[3], (SessionEnd::ClosedByPeer { reason: Some(Goodbye::Busy) }, false)), "{ends:?}");
        assert!(matches!(ends[4], (SessionEnd::Silent(SHORT), false)), "{ends:?}");
    }

    #[tokio::test]
    async fn hellos_cross_and_another_version_or_request_is_refused() {
        let (mut left, mut right) = duplex(1024);
        let (greeted, welcomed) = tokio::join!(greet(&mut left), welcome(&mut right));
        greeted.expect("greeted");
        assert_eq!(welcomed.expect("welcomed"), our_hello());

        let newer = Hello { version: VERSION + 1, ..our_hello() };
        write_message(&mut left, &Request::Control(newer)).await.expect("written");
        let refused = welcome(&mut right).await;
        assert!(matches!(refused, Err(SessionError::Version { theirs, .. }) if theirs == VERSION + 1), "{refused:?}");

        write_message(&mut left, &Request::Catalogue).await.expect("written");
        assert!(matches!(welcome(&mut right).await, Err(SessionError::Protocol(_))));
    }
}
