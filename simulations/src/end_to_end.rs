//! The main job on real input: a bootstrap node, a sharer, a getter and a third node move a tree of real files and one
//! big file by public key and name, then by hash from the second provider when the first has gone.
//!
//! What it is not: a benchmark, though it prints times.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use keyferry::node::api::{Event, Shared};
use serde::Serialize;

use crate::{
    content,
    lab::Lab,
    measure::{MIB, Usage, parse_size},
};

/// Fetches by hash that are tried.
const TRIES: u64 = 10;

/// What to move.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The least number of files in the tree.
    #[arg(long, default_value_t = 2500)]
    files: u64,
    /// The size of the big file.
    #[arg(long, default_value = "2GiB", value_parser = parse_size)]
    size: u64,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// One fetch.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    address: String,
    files: u64,
    bytes: u64,
    seconds: f64,
    path: Vec<String>,
    receiver: Usage,
}

/// Moves everything, compares, and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let mut lab = Lab::new(options.dir.as_deref())?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status.hints);
    let tree = lab.folder("tree")?;
    let origin = content::real_tree(&tree, options.files)?;
    content::random_file(&lab.path("big.bin"), 7, options.size)?;
    let paths = [tree.clone(), lab.path("big.bin")];

    let args = [OsStr::new("share"), paths[0].as_os_str(), paths[1].as_os_str()];
    let mut sharer = lab.start("sharer", args)?;
    let shared = [sharer.wait_shared()?, sharer.wait_shared()?];
    let mut rows = Vec::new();
    for (source, shared) in paths.iter().zip(&shared) {
        rows.push(fetch(&lab, "getter", &shared.address.to_string(), source, shared, "key and name")?);
    }
    let sender = Usage::of(sharer.pid())?;

    let (_second, _) = lab.node("getter")?;
    sharer.stop()?;
    for (source, shared) in paths.iter().zip(&shared) {
        let address = format!("keyferry:{}", shared.hash);
        rows.push(fetch_by_hash(&lab, &address, source, shared)?);
    }
    sound(&lab, "third")?;
    if json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "fetches": rows, "sender": sender }))?);
        return Ok(());
    }
    println!("The tree: {origin}. Everything arrived bit for bit.\n");
    for row in &rows {
        let mib = row.bytes as f64 / MIB;
        println!(
            "  by {:<30} {:>5} files {mib:>7.1} MiB {:>7.2} s  {:>5.1} MiB resident  {}",
            row.what,
            row.files,
            row.seconds,
            row.receiver.peak_resident_bytes as f64 / MIB,
            row.path.join(", ")
        );
    }
    println!("  sender: {:.1} MiB resident at most", sender.peak_resident_bytes as f64 / MIB);
    Ok(())
}

/// Fetches from the second provider, whose provider record takes a moment to be found.
fn fetch_by_hash(lab: &Lab, address: &str, source: &Path, shared: &Shared) -> Result<Row> {
    let mut last = None;
    for round in 0..TRIES {
        std::thread::sleep(Duration::from_secs(round.min(2)));
        match fetch(lab, "third", address, source, shared, "hash, from the second provider") {
            Ok(row) => return Ok(row),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("nothing was tried")?.context(format!("no fetch by hash in {TRIES} tries; the last one")))
}

fn fetch(lab: &Lab, node: &str, address: &str, source: &Path, shared: &Shared, what: &str) -> Result<Row> {
    let out = lab.path(format!("{node}-out"));
    fs::create_dir_all(&out)?;
    // Others fetch from whoever seeds.
    let (fetched, took, receiver) = lab.get_to_seed(node, address, &out)?;
    let files = content::same(source, &fetched.path)?;
    ensure!(files == shared.files && fetched.size == shared.size, "{fetched:?} is not {shared:?}");
    Ok(Row {
        what: what.to_owned(),
        address: address.to_owned(),
        files,
        bytes: fetched.size,
        seconds: took.as_secs_f64(),
        path: fetched.from.iter().map(|source| source.path.description.clone()).collect(),
        receiver,
    })
}

fn sound(lab: &Lab, node: &str) -> Result<()> {
    let outcome = lab.start(node, ["store", "verify"])?.finish()?;
    match outcome.events().last() {
        Some(Event::Verified { damaged: 0, .. }) => Ok(()),
        other => bail!("the store of {node} is not sound: {other:?}"),
    }
}
