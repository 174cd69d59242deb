//! Connectivity checks against a standard ICE agent, libnice, over loopback: who connects and who controls, in all four
//! combinations. Where libnice is not installed they are skipped.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use keyferry_ice::{Candidate, CandidateKind, Config, Credentials, Description, Mapping, Role, Strategy, TcpType};
use keyferry_tests::ice::{Ended, IcePeer, read_frame, write_frame};
use tempfile::TempDir;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Long enough for checks on loopback on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// Who opens the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connects {
    We,
    Libnice,
}

#[tokio::test]
async fn our_agent_connects_and_controls() -> Result<()> {
    negotiate(Connects::We, Role::Controlling).await
}

#[tokio::test]
async fn our_agent_connects_and_is_controlled() -> Result<()> {
    negotiate(Connects::We, Role::Controlled).await
}

#[tokio::test]
async fn libnice_connects_and_our_agent_controls() -> Result<()> {
    negotiate(Connects::Libnice, Role::Controlling).await
}

#[tokio::test]
async fn libnice_connects_and_our_agent_is_controlled() -> Result<()> {
    negotiate(Connects::Libnice, Role::Controlled).await
}

async fn negotiate(connects: Connects, role: Role) -> Result<()> {
    let Some(program) = build()? else { return Ok(()) };
    let mut nice = Libnice::start(&program, role)?;
    let their = nice.description()?;
    let credentials = Credentials { ufrag: "ourUfrag".to_owned(), password: "ourPasswordIsLongEnough00".to_owned() };
    let mut us = IcePeer::new(LOOPBACK, role, credentials, Config::default()).await?;
    let (ours, theirs) = match connects {
        Connects::We => (TcpType::Active, TcpType::Passive),
        Connects::Libnice => (TcpType::Passive, TcpType::Active),
    };
    us.add_host_candidate(ours);
    nice.tell(&us)?;
    let candidates = their.candidates.into_iter().filter(|candidate| candidate.tcp_type == theirs).collect();
    us.agent.set_remote(std::time::Instant::now(), Description { candidates, ..their })?;

    let (selected, mut stream) = match us.run(SOON).await? {
        Ended::Selected(selected, stream) => (selected, stream),
        Ended::Failed(reason) => bail!("{reason}: {:?}", us.agent.pairs()),
    };

    let strategy = if connects == Connects::We { Strategy::Connected } else { Strategy::Accepted };
    ensure!(selected.strategy == strategy, "{selected:?}");
    let chosen = nice.wait_for("selected ")?;
    nice.wait_for("state ready")?;
    let port = stream.local_addr()?.port();
    ensure!(chosen.ends_with(&format!(" {port}")), "libnice has selected {chosen}, and not our port {port}");
    // libnice goes on with RFC 4571 frames, where our agent hands the connection over: it must be at a frame's edge.
    write_frame(&mut stream, b"from us").await?;
    nice.wait_for("received from us")?;
    nice.say("send from libnice")?;
    ensure!(read_frame(&mut stream).await? == b"from libnice", "not what libnice was told to send");
    Ok(())
}

/// The program around libnice, or `None` where there is no libnice.
fn build() -> Result<Option<Program>> {
    if keyferry_needs::lacks(&["pkg-config", "cc"]) {
        return Ok(None);
    }
    let output = match Command::new("pkg-config").args(["--cflags", "--libs", "nice"]).output() {
        Ok(output) if output.status.success() => output,
        _ => {
            keyferry_needs::skip("libnice-dev", "pkg-config does not find nice (Debian: libnice-dev)");
            return Ok(None);
        }
    };
    let dir = tempfile::Builder::new().prefix("keyferry-interop-").tempdir()?;
    let flags = String::from_utf8(output.stdout)?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/libnice_agent.c");
    let status = Command::new("cc")
        .args(["-std=c11", "-o"])
        .arg(dir.path().join("libnice-agent"))
        .arg(source)
        .args(flags.split_whitespace())
        .status()
        .context("no C compiler")?;
    ensure!(status.success(), "{source} does not compile");
    Ok(Some(Program { dir }))
}

struct Program {
    dir: TempDir,
}

/// A running libnice agent. It ends when dropped.
struct Libnice {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Libnice {
    /// Starts it in the other role.
    fn start(program: &Program, our_role: Role) -> Result<Self> {
        let role = if our_role == Role::Controlling { "controlled" } else { "controlling" };
        let mut child = Command::new(program.dir.path().join("libnice-agent"))
            .args([role, &LOOPBACK.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("standard input was piped")?;
        let output = BufReader::new(child.stdout.take().context("standard output was piped")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, input, lines })
    }

    fn description(&self) -> Result<Description> {
        let mut description = Description {
            ufrag: String::new(),
            password: String::new(),
            candidates: Vec::new(),
            complete: true,
            mapping: Mapping::EndpointIndependent,
            opening: false,
        };
        loop {
            let line = self.lines.recv_timeout(SOON).context("libnice has not gathered")?;
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["credentials", ufrag, password] => {
                    description.ufrag = ufrag.to_owned();
                    description.password = password.to_owned();
                }
                ["candidate", tcp_type, ip, port, priority] => {
                    description.candidates.push(candidate(tcp_type, ip, port, priority)?);
                }
                ["gathered"] => return Ok(description),
                _ => {}
            }
        }
    }

    /// Tells it how to reach us, and lets it begin.
    fn tell(&mut self, us: &IcePeer) -> Result<()> {
        let Description { ufrag, password, candidates, .. } = us.agent.description();
        self.say(&format!("credentials {ufrag} {password}"))?;
        for Candidate { tcp_type, addr, priority, .. } in candidates {
            let name = if tcp_type == TcpType::Active { "active" } else { "passive" };
            self.say(&format!("candidate {name} {} {} {}", addr.ip(), addr.port(), u32::from(priority)))?;
        }
        self.say("end")
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}")?;
        Ok(self.input.flush()?)
    }

    /// Waits for a line that begins so, and gives it.
    fn wait_for(&self, beginning: &str) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(SOON).with_context(|| format!("no line {beginning:?} from libnice"))?;
            if line.starts_with(beginning) {
                return Ok(line);
            }
            ensure!(line != "state failed", "libnice says that it has failed");
        }
    }
}

impl Drop for Libnice {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn candidate(tcp_type: &str, ip: &str, port: &str, priority: &str) -> Result<Candidate> {
    let tcp_type = match tcp_type {
        "active" => TcpType::Active,
        "passive" => TcpType::Passive,
        _ => TcpType::SimultaneousOpen,
    };
    // libnice says 0 where RFC 6544 §4.5 wants 9: an active candidate has no port.
    let port = if port == "0" { 9 } else { port.parse()? };
    let addr = SocketAddr::new(ip.parse()?, port);
    Ok(Candidate { kind: CandidateKind::Host, tcp_type, addr, priority: priority.parse::<u32>()?.try_into()? })
}
