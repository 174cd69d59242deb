//! What Keyferry is compared with: files, zeros and tar streams over plain TCP, between two processes.
//!
//! The server prints its port, then serves connections until it is killed; the client connects, reads to the end and
//! ends. Buffers of 256 KiB, no encryption, no checksum, no fsync.
//!
//! What it is not: a tool for anything else.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

const BUFFER_LEN: usize = 256 * 1024;

/// What to serve: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ServeOptions {
    /// A file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// So many zero bytes, out of memory.
    #[arg(long)]
    zeros: Option<u64>,
    /// A folder, as a tar stream.
    #[arg(long)]
    tar: Option<PathBuf>,
}

/// What to serve, and where.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    what: ServeOptions,
    /// How many ports it uses.
    #[arg(long, default_value_t = 1)]
    ports: u32,
}

/// Where from and where to.
#[derive(Debug, Args)]
pub(crate) struct FetchOptions {
    /// The port on 127.0.0.1.
    port: u16,
    /// Write to this file; without it and without --untar the bytes are dropped.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Unpack a tar stream into this folder.
    #[arg(long)]
    untar: Option<PathBuf>,
}

/// A server process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    ports: Vec<u16>,
}

impl Server {
    /// Starts this executable as a server, such as with `["--file", PATH]`.
    pub(crate) fn start(args: &[&std::ffi::OsStr]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("plain-serve").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("standard output was piped")?;
        let mut server = Self { child, ports: Vec::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ports: Result<_, _> = line.split_whitespace().map(str::parse).collect();
        server.ports = ports.context("the plain server prints its ports")?;
        ensure!(!server.ports.is_empty(), "the plain server has no port");
        Ok(server)
    }

    /// The first port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// All of them.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Starts this executable as a client and waits for its end. The time from its start until its end.
    pub(crate) fn fetch(&self, args: &[&std::ffi::OsStr]) -> Result<Duration> {
        let began = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        let status = command.arg("plain-fetch").arg(self.port().to_string()).args(args).status()?;
        ensure!(status.success(), "the plain client failed: {status}");
        Ok(began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server.
pub(crate) fn serve(options: &ServerOptions) -> Result<()> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..options.ports).map(bind).collect::<Result<Vec<_>, _>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port().to_string()));
    println!("{}", ports.collect::<io::Result<Vec<_>>>()?.join(" "));
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept(listener, &options.what));
        }
    });
    Ok(())
}

fn accept(listener: &TcpListener, options: &ServeOptions) -> Result<()> {
    thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept()?;
            // A client that has heard enough hangs up.
            scope.spawn(|| serve_one(stream, options).inspect_err(|error| eprintln!("plain-serve: {error:#}")).ok());
        }
    })
}

fn serve_one(mut stream: TcpStream, options: &ServeOptions) -> Result<()> {
    stream.set_nodelay(true)?;
    if let Some(path) = &options.file {
        copy(&mut File::open(path)?, &mut stream)?;
    } else if let Some(len) = options.zeros {
        match copy(&mut io::repeat(0).take(len), &mut stream) {
            Err(error) if is_hang_up(&error) => {}
            result => result?,
        }
    } else if let Some(dir) = &options.tar {
        tar(stream, dir)?;
    }
    Ok(())
}

/// Whether a client has hung up, as it may before the end of zeros without end.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The client.
pub(crate) fn fetch(options: &FetchOptions) -> Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
    if let Some(dir) = &options.untar {
        let input = Stdio::from(OwnedFd::from(stream));
        let status = Command::new("tar").args(["-x", "-f", "-", "-C"]).arg(dir).stdin(input).status()?;
        ensure!(status.success(), "tar: {status}");
    } else if let Some(path) = &options.file {
        copy(&mut stream, &mut File::create_new(path)?)?;
    } else {
        copy(&mut stream, &mut io::sink())?;
    }
    Ok(())
}

fn tar(stream: TcpStream, dir: &Path) -> Result<()> {
    let output = Stdio::from(OwnedFd::from(stream));
    let status = Command::new("tar").args(["-c", "-f", "-", "-C"]).arg(dir).arg(".").stdout(output).status()?;
    ensure!(status.success(), "tar: {status}");
    Ok(())
}

/// Not `io::copy`, which would let the kernel splice: this is what a program does that touches its bytes.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len])?,
        }
    }
}
