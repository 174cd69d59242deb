//! Peers of a negotiation that do not know the password, lie about roles, nominate twice, shout or say nothing: at worst
//! this negotiation fails, in its time.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use keyferry::{
    connect::ice::{IceError, IceFailure},
    net::path::Path,
};
use keyferry_ice::{Config, Description, FailureReason, Mapping, Role};
use keyferry_tests::{
    ice::{
        check::{Check, class_of, code_of, error, nominates, success},
        node::{IceNode, Peer, dialogue},
        read_frame, write_frame,
    },
    lab::SOON,
};
use stun_types::message::MessageClass;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::stun::{connect_from, files_are_closed_again, is_closed, open_files};

const OUR_UFRAG: &str = "liar";
const OUR_PASSWORD: &str = "0123456789012345678901";

/// A negotiation of a node with somebody who may lie.
struct Victim {
    node: IceNode,
    credentials: Description,
    role: Role,
    run: JoinHandle<Result<Path, IceError>>,
    _peer: Peer,
}

impl Victim {
    /// Begins one that has time for all that a test does before it tells the truth.
    async fn start(role: Role) -> Result<Self> {
        Self::with_deadline(role, SOON).await
    }

    /// Begins one with a deadline that a test can wait for.
    async fn impatient(role: Role) -> Result<Self> {
        Self::with_deadline(role, Duration::from_secs(4)).await
    }

    async fn with_deadline(role: Role, deadline: Duration) -> Result<Self> {
        let config = Config { deadline, ..Config::default() };
        let node = IceNode::start("127.0.0.1:0".parse()?, config).await?;
        let negotiation = node.begin(role)?;
        let credentials = negotiation.description();
        let (dialogue, peer) = dialogue(us(), Duration::from_millis(1));
        let policy = node.policy.clone();
        let run = tokio::spawn(async move { negotiation.run(dialogue, &policy).await });
        Ok(Self { node, credentials, role, run, _peer: peer })
    }

    /// A check that an honest peer would send.
    fn check(&self) -> Check {
        Check {
            to: self.credentials.ufrag.clone(),
            from: OUR_UFRAG.to_owned(),
            password: self.credentials.password.clone(),
            role: if self.role == Role::Controlling { Role::Controlled } else { Role::Controlling },
            tie_breaker: 1,
            nominates: false,
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(connect_from("127.0.0.1".parse()?, self.node.addr).await?)
    }

    /// Connects with an honest check, and answers and asks until both sides have proven themselves.
    async fn proven(&self) -> Result<TcpStream> {
        let mut stream = self.connect().await?;
        write_frame(&mut stream, &self.check().to_bytes()).await?;
        let (mut asked, mut answered) = (false, false);
        while !(asked && answered) {
            let frame = next_frame(&mut stream).await?;
            match class_of(&frame).context("not STUN")? {
                MessageClass::Request => {
                    write_frame(&mut stream, &success(&frame, self.node.addr, OUR_PASSWORD)).await?;
                    answered = true;
                }
                MessageClass::Success => asked = true,
                other => bail!("{other:?} {:?}", code_of(&frame)),
            }
        }
        Ok(stream)
    }

    async fn end(self) -> Result<Result<Path, IceError>> {
        Ok(timeout(SOON, self.run).await.context("the negotiation hangs")??)
    }

    /// Does all that an honest peer does, and requires that it is believed.
    async fn believes_the_honest(self) -> Result<()> {
        let mut stream = self.proven().await?;
        match self.role {
            Role::Controlled => {
                write_frame(&mut stream, &Check { nominates: true, ..self.check() }.to_bytes()).await?;
                ensure!(class_of(&next_frame(&mut stream).await?) == Some(MessageClass::Success));
            }
            Role::Controlling => loop {
                let frame = next_frame(&mut stream).await?;
                write_frame(&mut stream, &success(&frame, self.node.addr, OUR_PASSWORD)).await?;
                if nominates(&frame) {
                    break;
                }
            },
        }
        stream.write_all(b"raw from here on").await?;
        let mut path = self.end().await?.map_err(anyhow::Error::from)?;
        ensure!(path.report.remote == stream.local_addr()?, "{:?}", path.report);
        let mut said = [0; 16];
        path.stream.read_exact(&mut said).await?;
        ensure!(&said == b"raw from here on", "bytes after the last check were swallowed");
        Ok(())
    }
}

fn us() -> Description {
    Description {
        ufrag: OUR_UFRAG.to_owned(),
        password: OUR_PASSWORD.to_owned(),
        candidates: Vec::new(),
        complete: true,
        mapping: Mapping::EndpointIndependent,
        opening: false,
    }
}

async fn next_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    Ok(timeout(SOON, read_frame(stream)).await??)
}

#[tokio::test]
async fn the_truth_is_believed_in_both_roles() -> Result<()> {
    Victim::start(Role::Controlled).await?.believes_the_honest().await?;
    Victim::start(Role::Controlling).await?.believes_the_honest().await
}

#[tokio::test]
async fn a_wrong_username_or_password_proves_nothing() -> Result<()> {
    let victim = Victim::start(Role::Controlled).await?;
    let honest = victim.check();
    let mut cut = honest.to_bytes();
    // FINGERPRINT and MESSAGE-INTEGRITY gone, the length told anew.
    cut.truncate(cut.len() - 8 - 24);
    let len = u16::try_from(cut.len() - 20)?;
    cut[2..4].copy_from_slice(&len.to_be_bytes());
    let lies = [
        Check { to: "somebody".to_owned(), ..honest.clone() }.to_bytes(),
        Check { to: String::new(), ..honest.clone() }.to_bytes(),
        Check { password: "not the password at all".to_owned(), ..honest.clone() }.to_bytes(),
        Check { password: OUR_PASSWORD.to_owned(), nominates: true, ..honest.clone() }.to_bytes(),
        cut,
    ];
    for lie in lies {
        let mut stream = victim.connect().await?;
        write_frame(&mut stream, &lie).await?;
        // An error response at most, and never a success.
        while let Ok(frame) = next_frame(&mut stream).await {
            ensure!(class_of(&frame) == Some(MessageClass::Error), "{:?}", class_of(&frame));
        }
    }
    let counters = victim.node.front.counters();
    ensure!(counters.ice_unknown.get() >= 2, "{counters:?}");
    victim.believes_the_honest().await
}

#[tokio::test]
async fn a_check_that_is_cut_anywhere_is_answered() -> Result<()> {
    let victim = Victim::start(Role::Controlled).await?;
    let message = victim.check().to_bytes();
    let mut framed = Vec::new();
    write_frame(&mut framed, &message).await?;
    for at in (1..framed.len()).step_by(3) {
        let mut stream = victim.connect().await?;
        stream.write_all(&framed[..at]).await?;
        // Long enough for the first piece to be looked at by itself.
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.write_all(&framed[at..]).await?;
        let answer = next_frame(&mut stream).await?;
        ensure!(class_of(&answer) == Some(MessageClass::Success), "cut at {at}: {:?}", class_of(&answer));
    }
    victim.believes_the_honest().await
}

#[tokio::test]
async fn garbage_after_a_valid_check_closes_that_connection_only() -> Result<()> {
    let victim = Victim::start(Role::Controlled).await?;
    let request = victim.check().to_bytes();
    let shouted = vec![b'!'; 60_000];
    let garbage: [&[u8]; 4] = [&[0, 0], &[0xff, 0xff], &[0, 3, 1, 2, 3], &shouted];
    for bytes in garbage {
        let mut stream = victim.connect().await?;
        write_frame(&mut stream, &request).await?;
        // The node may close while we write.
        let _ = stream.write_all(bytes).await;
        while next_frame(&mut stream).await.is_ok() {}
    }
    // A response to a request that was never made is no reason for anything.
    let mut stream = victim.proven().await?;
    write_frame(&mut stream, &success(&request, victim.node.addr, OUR_PASSWORD)).await?;
    drop(stream);
    victim.believes_the_honest().await
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up() -> Result<()> {
    for role in [Role::Controlled, Role::Controlling] {
        let before = open_files()?;
        let victim = Victim::impatient(role).await?;
        let mut stream = victim.connect().await?;
        write_frame(&mut stream, &victim.check().to_bytes()).await?;

        let ended = victim.end().await?;

        let Err(error) = ended else { bail!("believed without an answer") };
        ensure!(matches!(error.reason, IceFailure::NoPath(_)), "{error:?}");
        while next_frame(&mut stream).await.is_ok() {}
        drop(stream);
        files_are_closed_again(before).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_liar_about_roles_gets_no_path_and_no_endless_talk() -> Result<()> {
    /// Far more than an honest conflict needs.
    const ENOUGH: usize = 200;
    for role in [Role::Controlled, Role::Controlling] {
        let victim = Victim::impatient(role).await?;
        let honest = victim.check();
        let addr = victim.node.addr;
        let liar = tokio::spawn(async move {
            let mut frames = 0;
            // Answers each request with 487, and always claims the role that the node claims.
            while let Ok(mut stream) = connect_from(addr.ip(), addr).await {
                let mut claim = Check { role, tie_breaker: u64::MAX, ..honest.clone() };
                if write_frame(&mut stream, &claim.to_bytes()).await.is_err() {
                    break;
                }
                while let Ok(Ok(frame)) = timeout(SOON, read_frame(&mut stream)).await {
                    frames += 1;
                    if class_of(&frame) == Some(MessageClass::Request) {
                        let _ = write_frame(&mut stream, &error(&frame, 487, OUR_PASSWORD)).await;
                        claim.tie_breaker = if frames % 2 == 0 { u64::MAX } else { 0 };
                        let _ = write_frame(&mut stream, &claim.to_bytes()).await;
                    }
                    if frames > ENOUGH {
                        return frames;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                if frames > ENOUGH {
                    return frames;
                }
            }
            frames
        });

        let ended = victim.end().await?;

        ensure!(ended.is_err(), "a liar was believed");
        liar.abort();
        let frames = liar.await.unwrap_or_default();
        ensure!(frames <= ENOUGH, "{frames} frames for a liar");
    }
    Ok(())
}

#[tokio::test]
async fn of_two_nominations_one_counts() -> Result<()> {
    let before = open_files()?;
    let victim = Victim::start(Role::Controlled).await?;
    let nominate = Check { nominates: true, ..victim.check() };
    let (mut first, mut second) = (victim.proven().await?, victim.proven().await?);
    let addrs: [SocketAddr; 2] = [first.local_addr()?, second.local_addr()?];
    write_frame(&mut first, &nominate.to_bytes()).await?;
    write_frame(&mut second, &nominate.to_bytes()).await?;

    let path = victim.end().await?.map_err(anyhow::Error::from)?;

    ensure!(addrs.contains(&path.report.remote), "{:?}", path.report);
    let loser = if path.report.remote == addrs[0] { &mut second } else { &mut first };
    while next_frame(loser).await.is_ok() {}
    drop((first, second, path));
    files_are_closed_again(before).await
}

#[tokio::test]
async fn a_second_nomination_on_the_same_connection_is_the_session_s_business() -> Result<()> {
    let victim = Victim::start(Role::Controlled).await?;
    let nominate = Check { nominates: true, ..victim.check() };
    let mut stream = victim.proven().await?;
    let mut twice = Vec::new();
    write_frame(&mut twice, &nominate.to_bytes()).await?;
    let second = Check { tie_breaker: 2, ..nominate }.to_bytes();
    write_frame(&mut twice, &second).await?;
    stream.write_all(&twice).await?;

    let mut path = victim.end().await?.map_err(anyhow::Error::from)?;

    // TLS refuses what is no ClientHello; ICE neither answers nor swallows it.
    let mut left = vec![0; second.len() + 2];
    path.stream.read_exact(&mut left).await?;
    ensure!(left[2..] == second, "not the bytes that followed");
    Ok(())
}

#[tokio::test]
async fn checks_of_strangers_do_not_keep_the_peer_out() -> Result<()> {
    /// More than the node has places for one host.
    const STRANGERS: usize = 200;
    let before = open_files()?;
    let victim = Victim::start(Role::Controlled).await?;
    let mut strangers = Vec::new();
    for number in 0..STRANGERS {
        let mut stream = connect_from("127.0.0.3".parse()?, victim.node.addr).await?;
        let unknown = Check { to: format!("none{number}"), ..victim.check() };
        let _ = write_frame(&mut stream, &unknown.to_bytes()).await;
        strangers.push(stream);
    }
    victim.believes_the_honest().await?;
    for stream in &mut strangers {
        is_closed(stream).await?;
    }
    drop(strangers);
    files_are_closed_again(before).await
}

#[tokio::test]
async fn a_peer_that_floods_is_held_to_the_limits() -> Result<()> {
    const CONNECTIONS: usize = 200;
    let before = open_files()?;
    let victim = Victim::impatient(Role::Controlled).await?;
    let limits = Config::default();
    let (mut open, check, began) = (Vec::new(), victim.check().to_bytes(), Instant::now());
    for _ in 0..CONNECTIONS {
        let mut stream = victim.connect().await?;
        // The right username and password, and then never an answer to the node's own check.
        let _ = write_frame(&mut stream, &check).await;
        open.push(stream);
    }
    // Each place is given again after the time for a check.
    let turns = 1 + u64::try_from(began.elapsed().as_nanos() / limits.check_timeout.as_nanos())?;
    let accepted = victim.node.ice.counters().accepted.get();
    ensure!((1..=turns * limits.max_conns as u64).contains(&accepted), "{accepted} in {:?}", began.elapsed());
    let error = victim.end().await?.err().context("believed without an answer")?;
    ensure!(
        matches!(
            error.reason,
            IceFailure::NoPath(FailureReason::Deadline | FailureReason::NoPairs | FailureReason::NoPairWorks)
        ),
        "{error:?}"
    );
    ensure!(error.pairs.len() <= limits.max_pairs, "{} pairs", error.pairs.len());
    for stream in &mut open {
        while next_frame(stream).await.is_ok() {}
    }
    drop(open);
    files_are_closed_again(before).await
}
