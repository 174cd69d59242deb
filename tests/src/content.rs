//! Files and folders to share, made from a seed, and the comparison of what arrived.
//!
//! What it is not: fast; it reads everything it compares.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};

/// Bytes that no compression shortens, the same for the same seed: BLAKE3's extendable output.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file of `len` bytes made from a seed.
pub fn random_file(path: &Path, seed: u64, len: u64) -> Result<()> {
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

/// Writes a folder of `files` files in nested folders: empty ones, equal ones, executable ones, one over a group of
/// 64 KiB and a name outside ASCII among them.
pub fn random_tree(root: &Path, seed: u64, files: u64) -> Result<()> {
    for index in 0..files {
        let dir = root.join(format!("d{}", index % 13)).join(format!("e{}", index % 7));
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("file {index}"));
        let len = match index % 10 {
            0 => 0,
            1 => 65_536,
            2 => 65_537,
            3 => 200_000,
            _ => (index * 7919) % 9000,
        };
        // Every fifth has the content of another one.
        let content = if index % 5 == 4 { seed } else { seed + index };
        fs::write(&path, random_bytes(content, len as usize))?;
        if index % 11 == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    fs::write(root.join("Größe \u{1f980}.txt"), b"a name outside ASCII")?;
    Ok(())
}

/// Requires that two files or folders have the same files with the same content and executable bits.
pub fn same(expected: &Path, got: &Path) -> Result<()> {
    let (wanted, found) = (summary(expected)?, summary(got)?);
    let missing: Vec<_> = wanted.keys().filter(|path| !found.contains_key(*path)).take(5).collect();
    let extra: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).take(5).collect();
    ensure!(missing.is_empty() && extra.is_empty(), "{}: missing {missing:?}, extra {extra:?}", got.display());
    let different: Vec<_> = wanted.iter().filter(|(path, file)| found[*path] != **file).take(5).collect();
    ensure!(different.is_empty(), "{}: different {different:?}", got.display());
    Ok(())
}

/// Requires that a folder holds nothing at all, hidden files included; one that is not there holds nothing.
pub fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        let found = summary(dir)?;
        ensure!(found.is_empty(), "{} holds {:?}", dir.display(), found.keys().take(5).collect::<Vec<_>>());
    }
    Ok(())
}

/// Requires that a folder has nothing that could be taken for a result: hidden files of an unfinished fetch at most.
pub fn unfinished(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        ensure!(name.to_string_lossy().starts_with('.'), "{name:?} was left in {}", dir.display());
    }
    Ok(())
}

type Summary = BTreeMap<String, (u64, blake3::Hash, bool)>;

fn summary(root: &Path) -> Result<Summary> {
    let mut files = Summary::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else {
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let executable = metadata.permissions().mode() & 0o100 != 0;
            files.insert(relative, (metadata.len(), hash_file(&path)?, executable));
        }
    }
    Ok(files)
}

/// The BLAKE3 hash of a file.
pub fn hash_file(path: &Path) -> Result<blake3::Hash> {
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
