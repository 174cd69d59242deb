//! What strangers do at the port before anybody knows what they want.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use keyferry::{NodeSecret, net::session::EarlyDial};
use keyferry_proto::dialling::Sought;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use super::attempts::{Attempt, PAUSE, Stranger};

/// Connections of each kind that a stranger holds.
const HELD: usize = 2;
/// How often it sends a hello with a wrong proof.
const HELLO_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for the answer to that.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) fn begin(stranger: &Stranger, all: &mut JoinSet<()>) {
    for _ in 0..HELD {
        all.spawn(stranger.clone().hold(Attempt::Silence));
        all.spawn(stranger.clone().hold(Attempt::HalfHello));
    }
    all.spawn(stranger.clone().guess());
}

impl Stranger {
    /// Holds a connection on which it has said nothing, or half of what would be let in, for as long as it is let.
    async fn hold(self, attempt: Attempt) {
        loop {
            self.note(attempt);
            // However it ends.
            let _ = self.held_once(attempt).await;
            sleep(PAUSE).await;
        }
    }

    async fn held_once(&self, attempt: Attempt) -> Result<()> {
        let mut stream = TcpStream::connect(self.target.port).await?;
        if attempt == Attempt::HalfHello {
            let hello = self.hello(Sought::Node(self.target.node))?;
            stream.write_all(&hello[..hello.len() / 2]).await?;
        }
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }

    /// Seeks other nodes here.
    async fn guess(self) {
        let mut turns = interval(HELLO_EVERY);
        loop {
            turns.tick().await;
            self.note(Attempt::BadHello);
            let _ = timeout(ANSWER, self.guessed_once()).await;
        }
    }

    async fn guessed_once(&self) -> Result<()> {
        let hello = self.hello(Sought::Node(NodeSecret::from_bytes(&rand::random()).public()))?;
        let mut stream = TcpStream::connect(self.target.port).await?;
        stream.write_all(&hello).await?;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }

    fn hello(&self, sought: Sought) -> Result<Vec<u8>> {
        Ok(EarlyDial::begin(&Arc::clone(&self.tls), sought)?.first_words().to_vec())
    }
}
