//! Files and folders to move, and the comparison of what arrived.
//!
//! What it is not: fast; it reads everything it compares.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Bytes made from a seed.
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file of random bytes, the same for the same seed.
pub(crate) fn random_file(path: &Path, seed: u64, len: u64) -> Result<()> {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        reader.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    file.flush()?;
    Ok(())
}

/// The seed of small files whose content does not matter.
pub(crate) const SMALL_FILES_SEED: u64 = 1_000_000;

/// Writes `count` files of `len` random bytes each, a hundred to a folder; the same for the same seed.
pub(crate) fn small_files(root: &Path, seed: u64, count: u64, len: u64) -> Result<()> {
    for index in 0..count {
        let dir = root.join(format!("folder-{:03}", index / 100));
        fs::create_dir_all(&dir)?;
        random_file(&dir.join(format!("file-{index:05}.dat")), seed.wrapping_add(index), len)?;
    }
    Ok(())
}

/// Copies real files into `root` until there are `count`: sources of the libraries that cargo has fetched, or, where
/// there are none, made up ones. Says where they came from.
pub(crate) fn real_tree(root: &Path, count: u64) -> Result<String> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut copied = 0;
    for registry in cargo_home.iter().flat_map(|home| fs::read_dir(home.join("registry/src"))).flatten().flatten() {
        let mut crates: Vec<_> = fs::read_dir(registry.path())?.flatten().map(|entry| entry.path()).collect();
        crates.sort();
        for source in &crates {
            if copied >= count {
                break;
            }
            if let Some(name) = source.file_name() {
                copied += copy_tree(source, &root.join(name))?;
            }
        }
    }
    if copied < count {
        small_files(&root.join("made-up"), SMALL_FILES_SEED, count - copied, 10_000)?;
    }
    let made_up = count.saturating_sub(copied);
    Ok(format!("{copied} source files of libraries that cargo has fetched and {made_up} made-up ones"))
}

fn copy_tree(from: &Path, to: &Path) -> Result<u64> {
    fs::create_dir_all(to)?;
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copied += copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
            copied += 1;
        }
    }
    Ok(copied)
}

/// Requires that two files or folders have the same files with the same content. Says how many files that are.
pub(crate) fn same(expected: &Path, got: &Path) -> Result<u64> {
    let (wanted, found) = (summary(expected)?, summary(got)?);
    ensure!(wanted.len() == found.len(), "{} files where {} were sent", found.len(), wanted.len());
    for (path, hash) in &wanted {
        ensure!(found.get(path) == Some(hash), "{} is not what was sent", got.join(path).display());
    }
    Ok(wanted.len() as u64)
}

fn summary(root: &Path) -> Result<BTreeMap<PathBuf, blake3::Hash>> {
    let (mut files, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), hash_file(&path)?);
        }
    }
    Ok(files)
}

/// The BLAKE3 hash of a file.
pub(crate) fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            len => hasher.update(&buffer[..len]),
        };
    }
}

/// Removes a file or folder and has the kernel write back what is dirty, so that no run pays for the one before it.
pub(crate) fn settle(remove: &Path) -> Result<()> {
    if remove.is_dir() {
        fs::remove_dir_all(remove)?;
    } else if remove.exists() {
        fs::remove_file(remove)?;
    }
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    Ok(())
}
