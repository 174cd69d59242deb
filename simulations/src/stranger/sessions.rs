//! What strangers do with sessions, once they have one.

use std::time::Duration;

use anyhow::{Result, bail};
use keyferry::net::{
    path::{AddressPolicy, Path, PathReport},
    session::{InboundStreams, Session, SessionStream, write_message},
};
use keyferry_proto::{
    dialling::Sought,
    message::{ContentRequest, Message, Request},
    transfer::units::UnitRanges,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep},
};

use super::attempts::{Attempt, PAUSE, Stranger};

/// Uploads that are drawn out in a session.
const UPLOADS: usize = 4;
/// What is read of each at once, and how often: slow enough to take minutes, and quick enough not to be given up.
const SIP: usize = 16 * 1024;
const SIP_EVERY: Duration = Duration::from_millis(500);
/// How often something is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Streams in a session on which single bytes are sent.
const DRIPPING: usize = 20;
const DRIP_EVERY: Duration = Duration::from_millis(100);

/// What a stranger has a session for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// To have one.
    Hold,
    /// To be sent what it hardly reads.
    DrawOut,
    /// To ask for names and lists.
    Ask,
    /// To send frames of one byte.
    Drip,
}

pub(super) fn begin(stranger: &Stranger, all: &mut JoinSet<()>) {
    for purpose in [Purpose::Hold, Purpose::DrawOut, Purpose::Ask, Purpose::Drip] {
        all.spawn(stranger.clone().come_for(purpose));
    }
}

impl Stranger {
    /// Has a session for a purpose, and another one when that ends.
    async fn come_for(self, purpose: Purpose) {
        loop {
            self.note(Attempt::Session);
            if let Ok((session, _streams)) = self.session().await {
                // The session may end in the middle of it, and what it is used for with it.
                tokio::select! {
                    _ = session.closed() => {}
                    _ = self.use_for(purpose, &session) => {}
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn session(&self) -> Result<(Session, InboundStreams)> {
        let port = self.target.port;
        let stream = TcpStream::connect(port).await?;
        let report = PathReport::dialled(port, &AddressPolicy::for_listeners(&[port])?, Duration::ZERO);
        let path = Path { stream: stream.into(), report };
        Ok(Session::dial(path, &self.tls, Sought::Node(self.target.node)).await?)
    }

    async fn use_for(&self, purpose: Purpose, session: &Session) -> Result<()> {
        match purpose {
            Purpose::Hold => drop(session.closed().await),
            Purpose::DrawOut => self.in_all_of(UPLOADS, || self.draw_out(session)).await,
            Purpose::Ask => self.ask(session).await?,
            Purpose::Drip => self.in_all_of(DRIPPING, || self.drip(session)).await,
        }
        Ok(())
    }

    /// Does something so many times at once, until the first ends.
    async fn in_all_of<F: Future<Output = Result<()>>>(&self, times: usize, act: impl Fn() -> F) {
        let mut acts: Vec<_> = (0..times).map(|_| Box::pin(act())).collect();
        let first = std::future::poll_fn(|cx| {
            let ended = acts.iter_mut().any(|act| act.as_mut().poll(cx).is_ready());
            if ended { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        first.await;
    }

    async fn request_content(&self, session: &Session) -> Result<SessionStream> {
        let mut stream = session.open().await?;
        self.note(Attempt::Upload);
        let all = ContentRequest::groups(self.target.content, UnitRanges::all());
        write_message(&mut stream, &Request::Content(all)).await?;
        Ok(stream)
    }

    async fn draw_out(&self, session: &Session) -> Result<()> {
        let mut stream = self.request_content(session).await?;
        let (mut some, mut turns) = ([0; SIP], interval(SIP_EVERY));
        loop {
            turns.tick().await;
            stream.read_exact(&mut some).await?;
        }
    }

    async fn ask(&self, session: &Session) -> Result<()> {
        let mut turns = interval(ASK_EVERY);
        for number in 0_u64.. {
            turns.tick().await;
            self.note(Attempt::Question);
            let mut stream = session.open().await?;
            let request = match number % 2 {
                0 => Request::Catalogue,
                _ => Request::Resolve(self.target.name.clone()),
            };
            write_message(&mut stream, &request).await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
        bail!("there are no more numbers")
    }

    /// Asks for content byte by byte, each in a frame of its own, and goes on with what is no request any more.
    async fn drip(&self, session: &Session) -> Result<()> {
        let all = ContentRequest::groups(self.target.content, UnitRanges::all());
        let mut bytes = Request::Content(all).to_frame().into_iter().chain(std::iter::repeat(0));
        let (mut stream, mut turns) = (session.open().await?, interval(DRIP_EVERY));
        loop {
            turns.tick().await;
            self.note(Attempt::SmallFrame);
            stream.write_all(&[bytes.next().unwrap_or_default()]).await?;
            stream.flush().await?;
        }
    }
}
