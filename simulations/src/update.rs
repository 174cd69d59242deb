//! How much a newer version of a folder costs whoever has the one before: one small file that changed, and a piece in the middle of a large one;
//! `keyferry get` beside `rsync -a` from the same folder.
//!
//! What it is not: a measurement of the disk; what is written stays in the page cache.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use keyferry::node::api::Event;
use serde::Serialize;

use crate::{
    content,
    lab::Lab,
    measure::{MIB, median, parse_size},
};

/// Long enough ago for the time of a file to tell it from one that was written now.
const AGE: Duration = Duration::from_secs(60 * 60);
/// How much changes in the middle of the large file.
const PIECE: usize = 1 << 20;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many small files the folder has.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    files: u64,
    /// The size of each of them.
    #[arg(long, default_value = "10KiB", value_parser = parse_size)]
    file_size: u64,
    /// The size of the large file.
    #[arg(long, default_value = "5GiB", value_parser = parse_size)]
    large: u64,
    /// How often; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The figures.
#[derive(Debug, Serialize)]
struct Report {
    files: u64,
    bytes_each: u64,
    large_bytes: u64,
    small_file: Updates,
    piece_of_large_file: Updates,
    nothing: Updates,
}

/// What some updates of one kind cost.
#[derive(Debug, Default, Serialize)]
struct Updates {
    changed_bytes: u64,
    /// Bytes that the sharer handed to its sessions: lists, hash trees, groups.
    sent_bytes: Vec<u64>,
    get_seconds: Vec<f64>,
    rsync_seconds: Vec<f64>,
    median_get_seconds: f64,
    median_rsync_seconds: f64,
}

struct Bench {
    lab: Lab,
    source: PathBuf,
    out: PathBuf,
    mirror: PathBuf,
    address: String,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    ensure!(options.large >= 4 * PIECE as u64, "the large file has to be of 4 MiB at least");
    let lab = Lab::new(options.dir.as_deref())?;
    let source = lab.folder("tree")?;
    content::small_files(&source, content::SMALL_FILES_SEED, options.files, options.file_size)?;
    let large = source.join("large.bin");
    content::random_file(&large, 1, options.large)?;
    make_old(&source)?;
    let (_sharer, shared) = lab.share("sharer", &source)?;
    let (out, mirror) = (lab.folder("out")?, lab.folder("mirror")?);
    let bench = Bench { address: shared.address_with_hints.to_string(), lab, source, out, mirror };
    bench.lab.get("getter", &bench.address, &bench.out)?;
    bench.rsync()?;
    let mut report = Report {
        files: options.files,
        bytes_each: options.file_size,
        large_bytes: options.large,
        small_file: Updates { changed_bytes: options.file_size, ..Updates::default() },
        piece_of_large_file: Updates { changed_bytes: PIECE as u64, ..Updates::default() },
        nothing: Updates::default(),
    };
    for run in 0..options.runs {
        let small = bench.source.join("folder-000/file-00000.dat");
        content::random_file(&small, u64::from(run) + 1000, options.file_size)?;
        bench.update(&mut report.small_file)?;
        let piece = content::random_bytes(u64::from(run) + 2000, PIECE);
        File::options().write(true).open(&large)?.write_all_at(&piece, options.large / 2)?;
        bench.update(&mut report.piece_of_large_file)?;
        bench.update(&mut report.nothing)?;
    }
    content::same(&bench.source, &bench.out.join("tree"))?;
    match json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print(&report),
    }
    Ok(())
}

impl Bench {
    /// Shares what is there now, and has both bring what is new.
    fn update(&self, updates: &mut Updates) -> Result<()> {
        let words = ["share".as_ref(), self.source.as_os_str()];
        self.lab.start("sharer", words)?.finish()?.done()?;
        let before = self.sent()?;
        let (_, took, _) = self.lab.get("getter", &self.address, &self.out)?;
        updates.sent_bytes.push(self.sent()? - before);
        updates.get_seconds.push(took.as_secs_f64());
        updates.rsync_seconds.push(self.rsync()?.as_secs_f64());
        updates.median_get_seconds = median(&updates.get_seconds);
        updates.median_rsync_seconds = median(&updates.rsync_seconds);
        Ok(())
    }

    /// What the sharer has sent so far.
    fn sent(&self) -> Result<u64> {
        let events = self.lab.start("sharer", ["status"])?.finish()?.done()?;
        let sent = events.iter().find_map(|event| match event {
            Event::Status(status) => Some(status.sent_bytes),
            _ => None,
        });
        sent.context("no status")
    }

    fn rsync(&self) -> Result<Duration> {
        let began = Instant::now();
        let status = Command::new("rsync").arg("-a").arg(self.source.join("")).arg(&self.mirror).status();
        ensure!(status.context("cannot run rsync")?.success(), "rsync failed");
        Ok(began.elapsed())
    }
}

/// Gives all files of a folder a time that is not about now.
fn make_old(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => make_old(&entry.path())?,
            false => File::options().append(true).open(entry.path())?.set_modified(SystemTime::now() - AGE)?,
        }
    }
    Ok(())
}

fn print(report: &Report) {
    let Report { files, bytes_each, large_bytes, small_file, piece_of_large_file, nothing } = report;
    let tree = (files * bytes_each + large_bytes) as f64 / MIB;
    println!("\n{files} files of {bytes_each} bytes and one of {large_bytes}, {tree:.0} MiB in all:\n");
    println!("  changed                     bytes      sent at most    keyferry get    rsync -a");
    for (what, updates) in
        [("one small file", small_file), ("in a large file", piece_of_large_file), ("nothing", nothing)]
    {
        let sent = updates.sent_bytes.iter().max().copied().unwrap_or_default();
        println!(
            "  {what:<20} {:>12}  {sent:>16}  {:>11.3} s  {:>8.3} s",
            updates.changed_bytes, updates.median_get_seconds, updates.median_rsync_seconds
        );
    }
}
