//! How fast one big file goes: `keyferry get` beside a plain TCP copy, in turns, so that both see the same machine.
//!
//! What it is not: a measurement of a network; loopback only.

use std::{ffi::OsStr, fs, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::{
    content,
    lab::Lab,
    measure::{MIB, Series, Usage, parse_size},
    plain::Server,
    small_files::{self, SmallFiles},
    web::WebServer,
};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The size of the big file.
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// How often; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How many small files there are in the second table; 0 leaves it out.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    small_files: u64,
    /// The size of each small file.
    #[arg(long, default_value = "10KiB", value_parser = parse_size)]
    small_size: u64,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The figures.
#[derive(Debug, Serialize)]
struct Report {
    /// Speed of `keyferry get` by that of the plain TCP copy, medians.
    ratio: f64,
    size_bytes: u64,
    runs: u32,
    /// File read, TCP, file written: two processes.
    plain_copy: Series,
    /// Memory to memory over TCP: two processes.
    plain_memory: Series,
    /// `keyferry get` to a file, from the start of the process until its end.
    keyferry_get: Series,
    /// The same as `keyferry get` itself tells it.
    keyferry_get_own_clock: Series,
    sender: Usage,
    receiver: Usage,
    /// curl from nginx, plain, as a whole process; none where there is no nginx.
    #[serde(skip_serializing_if = "Option::is_none")]
    curl: Option<CurlReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    small_files: Option<SmallFiles>,
}

/// curl from nginx beside it.
#[derive(Debug, Default, Serialize)]
struct CurlReport {
    /// From the start of the process until its end.
    curl: Series,
    /// Speed of `keyferry get` by that of curl, medians.
    ratio: f64,
    /// nginx.
    sender: Usage,
    /// curl.
    receiver: Usage,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let lab = Lab::new(options.dir.as_deref())?;
    let mut report = big_file(&lab, options)?;
    if options.small_files > 0 {
        report.small_files = Some(small_files::measure(&lab, options.small_files, options.small_size, options.runs)?);
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn big_file(lab: &Lab, options: &Options) -> Result<Report> {
    let size = options.size;
    let source = lab.path("big.bin");
    content::random_file(&source, 1, size)?;
    let expected = content::hash_file(&source)?;
    let copy_server = Server::start(&["--file".as_ref(), source.as_os_str()])?;
    let memory_server = Server::start(&["--zeros".as_ref(), OsStr::new(&size.to_string())])?;
    let (sharer, shared) = lab.share("sharer", &source)?;
    let mut report = Report {
        ratio: 0.0,
        size_bytes: size,
        runs: options.runs,
        plain_copy: Series::default(),
        plain_memory: Series::default(),
        keyferry_get: Series::default(),
        keyferry_get_own_clock: Series::default(),
        sender: Usage::default(),
        receiver: Usage::default(),
        curl: None,
        small_files: None,
    };
    let target = lab.path("copy.bin");
    let web = WebServer::start(&lab.folder("web")?, &lab.path("nginx"))?;
    if web.is_some() {
        fs::hard_link(&source, lab.path("web/big.bin"))?;
    }
    for run in 0..options.runs {
        content::settle(&target)?;
        report.plain_memory.add(memory_server.fetch(&[])?, size);
        report.plain_copy.add(copy_server.fetch(&["--file".as_ref(), target.as_os_str()])?, size);
        ensure!(fs::metadata(&target)?.len() == size, "the plain copy is not complete");
        content::settle(&target)?;
        if let Some(web) = &web {
            let curl = report.curl.get_or_insert_default();
            let before = Usage::of(web.pid())?;
            let (took, receiver) = web.fetch("big.bin", &target)?;
            ensure!(fs::metadata(&target)?.len() == size, "what curl fetched is not complete");
            curl.sender = most(curl.sender, Usage::of(web.pid())?.since(before));
            curl.receiver = most(curl.receiver, receiver);
            curl.curl.add(took, size);
            content::settle(&target)?;
        }

        let out = lab.folder("out")?;
        let before = Usage::of(sharer.pid())?;
        let (fetched, took, receiver) = lab.get("getter", &shared.address_with_hints, &out)?;
        report.sender = most(report.sender, Usage::of(sharer.pid())?.since(before));
        report.receiver = most(report.receiver, receiver);
        report.keyferry_get.add(took, size);
        report.keyferry_get_own_clock.add(fetched.took, size);
        ensure!(fetched.resumed_bytes == 0 && fetched.size == size, "not a whole fetch: {fetched:?}");
        if run == 0 {
            ensure!(content::hash_file(&fetched.path)? == expected, "what arrived is not what was sent");
        }
        content::settle(&out)?;
        lab.forget("getter")?;
    }
    fs::remove_file(&source)?;
    report.ratio = report.plain_copy.median_seconds / report.keyferry_get.median_seconds;
    if let Some(curl) = &mut report.curl {
        curl.ratio = curl.curl.median_seconds / report.keyferry_get.median_seconds;
    }
    Ok(report)
}

/// The greater of each figure.
fn most(a: Usage, b: Usage) -> Usage {
    Usage {
        peak_resident_bytes: a.peak_resident_bytes.max(b.peak_resident_bytes),
        cpu_seconds: a.cpu_seconds.max(b.cpu_seconds),
    }
}

fn print(report: &Report) {
    println!("One file of {:.0} MiB over loopback, median of {}:\n", report.size_bytes as f64 / MIB, report.runs);
    let row = |name: &str, series: &Series| {
        let share = report.plain_copy.median_seconds / series.median_seconds;
        println!("  {name:<34} {:>7.3} s  {:>7.0} MiB/s  {share:>5.2}", series.median_seconds, series.mib_per_second);
    };
    row("TCP, memory to memory", &report.plain_memory);
    row("plain TCP copy, file to file", &report.plain_copy);
    if let Some(curl) = &report.curl {
        row("curl from nginx, plain", &curl.curl);
    }
    row("keyferry get, encrypted, verified", &report.keyferry_get);
    println!("\n  ratio of keyferry get to the plain TCP copy: {:.2}", report.ratio);
    match &report.curl {
        Some(curl) => println!("  ratio of keyferry get to curl: {:.2}", curl.ratio),
        None => println!("  there is no nginx here, or no curl, to compare with"),
    }
    let of_curl = report.curl.iter().flat_map(|curl| [("nginx", curl.sender), ("curl", curl.receiver)]);
    for (name, usage) in [("sender", report.sender), ("receiver", report.receiver)].into_iter().chain(of_curl) {
        let peak = usage.peak_resident_bytes as f64 / MIB;
        println!("  {name:<8} {peak:>6.1} MiB resident at most, {:>5.2} s of CPU", usage.cpu_seconds);
    }
    if let Some(small_files) = &report.small_files {
        small_files::print(small_files);
    }
}
