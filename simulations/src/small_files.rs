//! How fast many small files go: `keyferry get` of a folder beside `cp -r`, a plain tar over TCP and `rsync -a`, where that is installed.
//!
//! What it is not: a measurement of the disk; what is written stays in the page cache.

use std::{
    ffi::OsStr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{
    content,
    lab::Lab,
    measure::{MIB, Series, Usage},
    plain::Server,
    web::program,
};

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct SmallFiles {
    files: u64,
    bytes_each: u64,
    cp: Series,
    tar_over_tcp: Series,
    /// `rsync -a` from folder to folder: nothing is encrypted or hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    rsync: Option<Series>,
    /// From the start of the process until its end.
    keyferry_get: Series,
    /// From `share` until the address was printed: reading, hashing, writing the catalogue.
    keyferry_share_seconds: f64,
    sender: Usage,
    receiver: Usage,
}

/// Measures.
pub(crate) fn measure(lab: &Lab, files: u64, bytes_each: u64, runs: u32) -> Result<SmallFiles> {
    let source = lab.folder("small")?;
    content::small_files(&source, content::SMALL_FILES_SEED, files, bytes_each)?;
    let bytes = files * bytes_each;
    let tar = Server::start(&["--tar".as_ref(), source.as_os_str()])?;
    let began = Instant::now();
    let (sharer, shared) = lab.share("small-sharer", &source)?;
    let mut report = SmallFiles {
        files,
        bytes_each,
        cp: Series::default(),
        tar_over_tcp: Series::default(),
        rsync: program("rsync").map(|_| Series::default()),
        keyferry_get: Series::default(),
        keyferry_share_seconds: began.elapsed().as_secs_f64(),
        sender: Usage::default(),
        receiver: Usage::default(),
    };
    for run in 0..runs {
        let target = lab.folder("small-cp")?;
        report.cp.add(copied("cp", "-r", source.as_os_str(), target.as_os_str())?, bytes);
        content::settle(&target)?;

        let target = lab.folder("small-tar")?;
        report.tar_over_tcp.add(tar.fetch(&["--untar".as_ref(), target.as_os_str()])?, bytes);
        content::settle(&target)?;

        if let Some(rsync) = &mut report.rsync {
            let target = lab.folder("small-rsync")?;
            rsync.add(copied("rsync", "-a", source.as_os_str(), target.as_os_str())?, bytes);
            content::settle(&target)?;
        }

        let target = lab.folder("small-get")?;
        let before = Usage::of(sharer.pid())?;
        let (fetched, took, receiver) = lab.get("small-getter", &shared.address_with_hints, &target)?;
        report.keyferry_get.add(took, bytes);
        report.receiver = receiver;
        report.sender = Usage::of(sharer.pid())?.since(before);
        if run == 0 {
            ensure!(content::same(&source, &fetched.path)? == files, "files are missing");
        }
        content::settle(&target)?;
        lab.forget("small-getter")?;
    }
    content::settle(&source)?;
    Ok(report)
}

fn copied(program: &str, option: &str, from: &OsStr, to: &OsStr) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new(program).arg(option).arg(from).arg(to).status()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(began.elapsed())
}

/// Prints the table.
pub(crate) fn print(report: &SmallFiles) {
    println!("\n{} files of {} bytes each:\n", report.files, report.bytes_each);
    let row = |name: &str, series: &Series| {
        let rate = report.files as f64 / series.median_seconds;
        println!("  {name:<34} {:>7.3} s  {rate:>7.0} files/s", series.median_seconds);
    };
    row("cp -r", &report.cp);
    row("tar over plain TCP", &report.tar_over_tcp);
    if let Some(rsync) = &report.rsync {
        row("rsync -a", rsync);
    }
    row("keyferry get, encrypted, verified", &report.keyferry_get);
    println!("\n  keyferry share took {:.3} s until the address was there", report.keyferry_share_seconds);
    for (name, usage) in [("sender", report.sender), ("receiver", report.receiver)] {
        let peak = usage.peak_resident_bytes as f64 / MIB;
        println!("  {name:<8} {peak:>6.1} MiB resident at most, {:>5.2} s of CPU", usage.cpu_seconds);
    }
}
