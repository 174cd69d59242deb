//! Strangers at the port who guess whom, or what, is there: whatever they guess, and whatever they have recorded, they are not answered
//! with one byte.

use std::{
    env,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use keyferry::net::session::{EarlyDial, SessionTls};
use keyferry_proto::{
    dialling::{FirstFlight, NAME_LEN, RECORD_HEADER_LEN, Sought},
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
};
use keyferry_tests::{
    content,
    lab::{Lab, TRANSFER},
};

use crate::witness::still_serves;

/// How many guesses there are; the variable of this name says another number.
const GUESSES: (&str, usize) = ("KEYFERRY_TEST_GUESSES", 1_000);

/// What a stranger sends first.
#[derive(Debug, Clone, Copy)]
enum Guess {
    /// It seeks some node.
    WrongNode,
    /// It seeks some content.
    WrongContent,
    /// It sends what somebody has sent who knew the node.
    Replayed,
    /// It has that one's proof in a ClientHello of its own.
    Lifted,
    /// It has no proof.
    NoProof,
}

const ALL: [Guess; 5] = [Guess::WrongNode, Guess::WrongContent, Guess::Replayed, Guess::Lifted, Guess::NoProof];

#[test]
fn whatever_strangers_guess_they_get_no_answer() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("file"), 1, 500_000)?;
    let (node, status) = lab.node("sharer")?;
    let shared = lab.start("sharer", ["share".into(), lab.path("file").into_os_string()])?.wait_shared(TRANSFER)?;
    let port = *status.listen.first().context("a node listens")?;
    let stranger = Stranger::new()?;

    let right = stranger.first_flight(Sought::Node(status.node.parse()?))?;
    ensure!(answer(port, &right)?.starts_with(&[22, 3, 3]), "whoever knows the node is answered");
    let mut took: [Vec<Duration>; ALL.len()] = Default::default();
    let guesses = env::var(GUESSES.0).map_or(Ok(GUESSES.1), |number| number.parse())?;
    for number in 0..guesses {
        let kind = number % ALL.len();
        let flight = stranger.guess(ALL[kind], &right)?;
        let began = Instant::now();
        let answer = answer(port, &flight)?;
        ensure!(answer.is_empty(), "{:?} is answered with {} bytes", ALL[kind], answer.len());
        took[kind].push(began.elapsed());
    }
    for (guess, mut took) in ALL.into_iter().zip(took) {
        took.sort();
        println!("{guess:?}: closed after {:?}, the median of {}", took[took.len() / 2], took.len());
    }

    still_serves(&lab, &shared.address_with_hints.to_string(), &lab.path("file"))?;
    ensure!(!node.stderr().contains("panicked"), "{}", node.stderr());
    Ok(())
}

struct Stranger {
    tls: Arc<SessionTls>,
}

impl Stranger {
    fn new() -> Result<Self> {
        Ok(Self { tls: SessionTls::new(&NodeSecret::from_bytes(&rand::random()))? })
    }

    fn first_flight(&self, sought: Sought) -> Result<Vec<u8>> {
        Ok(EarlyDial::begin(&self.tls, sought)?.first_words().to_vec())
    }

    fn guess(&self, guess: Guess, right: &[u8]) -> Result<Vec<u8>> {
        let other: NodeKey = NodeSecret::from_bytes(&rand::random()).public();
        match guess {
            Guess::WrongNode => self.first_flight(Sought::Node(other)),
            Guess::WrongContent => self.first_flight(Sought::Content(ContentHash::from_bytes(rand::random()))),
            Guess::Replayed => Ok(right.to_vec()),
            Guess::Lifted => with_name(self.first_flight(Sought::Node(other))?, name_in(right)?.as_bytes()),
            Guess::NoProof => with_name(self.first_flight(Sought::Node(other))?, &[b'a'; NAME_LEN]),
        }
    }
}

/// The name in a first flight, which is its proof.
fn name_in(flight: &[u8]) -> Result<String> {
    let shown = FirstFlight::parse(&flight[RECORD_HEADER_LEN..]).context("a first flight shows a proof")?;
    Ok(shown.proof.to_name())
}

/// A first flight with another name.
fn with_name(mut flight: Vec<u8>, name: &[u8]) -> Result<Vec<u8>> {
    let old = name_in(&flight)?;
    let at = flight.windows(NAME_LEN).position(|part| part == old.as_bytes()).context("the name is in it")?;
    flight[at..at + NAME_LEN].copy_from_slice(name);
    Ok(flight)
}

/// All that comes back for these bytes until the node closes, or a first record of it.
fn answer(port: SocketAddr, flight: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(port)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.write_all(flight)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    // It may be a reset.
    let _ = stream.take(3).read_to_end(&mut answer);
    Ok(answer)
}
