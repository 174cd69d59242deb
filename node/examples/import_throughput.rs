//! Measures how fast files come into the store, beside reading them alone: `import_throughput FILE-OR-FOLDER`.
//!
//! Prints seconds and GB/s of reading, of an import in place, of one by copy, and of a verification, and the most memory
//! that the process had.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use anyhow::Context;
use keyferry::content::store::{ImportMode, Store};

fn main() -> anyhow::Result<()> {
    let path = PathBuf::from(std::env::args_os().nth(1).context("which file or folder?")?);
    let home = tempfile::tempdir_in(".")?;
    let mut size = 0;
    // Twice, so that the second finds all of it in the page cache, as the imports do.
    for _ in 0..2 {
        let begin = Begin::now();
        size = read_all(&path)?;
        report("read (one thread)", size, &begin);
    }
    let never = AtomicBool::new(false);
    for (what, mode) in [("import in place", ImportMode::InPlace), ("import by copy", ImportMode::Copy)] {
        let (store, _) = Store::open(&home.path().join(what))?;
        let begin = Begin::now();
        store.import(&path, &"it".parse()?, None, mode, &|_| {}, &never)?;
        report(what, size, &begin);
        let begin = Begin::now();
        store.verify(&|_| {}, &mut |damage| eprintln!("{damage:?}"), &never)?;
        report("verify", size, &begin);
        drop(store);
        let begin = Begin::now();
        let _store = Store::open(&home.path().join(what))?;
        report("open again", 0, &begin);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("memory unknown"));
    Ok(())
}

fn read_all(path: &Path) -> anyhow::Result<u64> {
    let (mut size, mut buffer) = (0, vec![0; 256 * 1024]);
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let mut file = File::open(entry.path())?;
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => size += read as u64,
                }
            }
        }
    }
    Ok(size)
}

/// A moment, by the wall clock and by the processor time that this process has used.
struct Begin {
    wall: Instant,
    cpu: f64,
}

impl Begin {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_seconds() }
    }
}

fn report(what: &str, size: u64, begin: &Begin) {
    let (wall, cpu) = (begin.wall.elapsed().as_secs_f64(), cpu_seconds() - begin.cpu);
    println!("{what:20} {wall:8.3} s {cpu:8.2} s of cpu {:8.2} GB/s", size as f64 / wall / 1e9);
}

/// Processor time of this process, user and system, in seconds; Linux counts it in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
