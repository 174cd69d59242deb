//! What a person would use where the sharer has a web server: nginx, and curl that fetches from it. Both are the system's own.
//!
//! What it is not: a part of the lab; where there is no nginx, nothing is compared with it.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::measure::{Sampler, Usage};

/// How long nginx may take to listen.
const START: Duration = Duration::from_secs(10);

/// A web server on loopback that serves a folder; killed when dropped.
pub(crate) struct WebServer {
    child: Child,
    port: u16,
}

impl WebServer {
    /// Starts nginx for a folder, with its own files in another; none where there is no nginx, or no curl.
    pub(crate) fn start(folder: &Path, own: &Path) -> Result<Option<Self>> {
        let (Some(nginx), Some(_)) = (program("nginx"), program("curl")) else { return Ok(None) };
        fs::create_dir_all(own)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = own.join("nginx.conf");
        fs::write(&config, configuration(folder, own, port))?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(own).arg("-c").arg(&config).arg("-e").arg(own.join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("nginx ended ({status}): {}", fs::read_to_string(own.join("error.log")).unwrap_or_default());
            }
            ensure!(began.elapsed() < START, "nginx does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fetches a file by curl: the time from the start of the process until its end, and what it used.
    pub(crate) fn fetch(&self, name: &str, target: &Path) -> Result<(Duration, Usage)> {
        let began = Instant::now();
        let url = format!("http://127.0.0.1:{}/{name}", self.port);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--output"]).arg(target).arg(url);
        let mut child = curl.stdin(Stdio::null()).spawn().context("cannot start curl")?;
        let sampler = Sampler::start(child.id());
        let status = child.wait()?;
        ensure!(status.success(), "curl failed ({status})");
        Ok((began.elapsed(), sampler.usage()))
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process that sends from the page cache, as nginx does by itself, and writes nothing outside its folder.
fn configuration(folder: &Path, own: &Path, port: u16) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String =
        temporary.iter().map(|kind| format!("    {kind}_temp_path {};\n", own.join(kind).display())).collect();
    format!(
        "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\n    access_log off;\n    sendfile on;\n    tcp_nopush on;\n\
         {temporary}    server {{\n        listen 127.0.0.1:{port};\n        root {};\n    }}\n}}\n",
        own.join("pid").display(),
        folder.display()
    )
}

/// Where a program is; also where Debian has those of root.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
