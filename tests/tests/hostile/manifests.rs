//! Manifests that would write where they have no business: refused before one file is made.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use keyferry_proto::{
    collection::{MAGIC, MAX_ENTRIES, MAX_MANIFEST_LEN, Manifest},
    hash::{ContentFormat, ContentHash},
    identity::NodeSecret,
    message::Request,
    transfer::layout::Layout,
};
use keyferry_tests::{
    hostile::{Answer, Blobs, Peer, resolved},
    lab::Lab,
};
use tokio::io::AsyncWriteExt;

use crate::witness::{each, refused};

const KEY: u8 = 5;
const CONTENT: &[u8] = b"something evil";

/// What is in front of the number of entries: the mark, and a shared folder of 1970.
const HEADER_LEN: usize = MAGIC.len() + 1 + 8;

/// Encodes a manifest without asking whether it is allowed. Folders on the way to a file are made as they come.
pub(crate) fn manifest(entries: &[(&str, u64, ContentHash)]) -> Vec<u8> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    let mut open: Vec<&str> = Vec::new();
    for (path, size, hash) in entries {
        let names: Vec<&str> = path.split('/').collect();
        let folders = &names[..names.len() - 1];
        let same = open.iter().zip(folders).take_while(|(open, wanted)| open == wanted).count();
        open.truncate(same);
        for name in &folders[same..] {
            entry(0, open.len(), name, &[&[0; 8]], &mut bytes);
            count += 1;
            open.push(name);
        }
        let size = size.to_le_bytes();
        entry(1, folders.len(), names[folders.len()], &[&[0; 8], &size, hash.as_bytes()], &mut bytes);
        count += 1;
    }
    listed(count, bytes)
}

/// A manifest of this many entries, whatever they are.
fn listed(count: u32, entries: Vec<u8>) -> Vec<u8> {
    [&MAGIC[..], &[0; 9], &count.to_le_bytes(), &entries].concat()
}

fn entry(kind: u8, depth: usize, name: &str, rest: &[&[u8]], bytes: &mut Vec<u8>) {
    bytes.extend([kind, u8::try_from(depth).unwrap_or(u8::MAX), u8::try_from(name.len()).unwrap_or(u8::MAX)]);
    bytes.extend(name.as_bytes());
    rest.iter().for_each(|part| bytes.extend(*part));
}

fn link(depth: usize, name: &str, target: &str, bytes: &mut Vec<u8>) {
    entry(2, depth, name, &[&(target.len() as u16).to_le_bytes(), target.as_bytes()], bytes);
}

/// A peer that shares a folder with this manifest, and sends it and its one content truthfully.
fn sharer(bytes: Vec<u8>) -> Result<Peer> {
    let mut blobs = Blobs::default();
    let size = bytes.len() as u64;
    let hash = blobs.add(bytes);
    blobs.add(CONTENT.to_vec());
    let blobs = Arc::new(blobs);
    Peer::start(KEY, move |request, mut stream| -> Answer {
        let blobs = blobs.clone();
        Box::pin(async move {
            let secret = NodeSecret::from_bytes(&[KEY; 32]);
            let reply = match request {
                Request::Resolve(name) => resolved(&secret, name.as_str(), hash, ContentFormat::Collection, size),
                Request::Content(request) => {
                    let mut reply = blobs.reply(&request, ContentFormat::Collection)?;
                    // What would follow if the manifest were taken: an item, and its data.
                    reply.push(0);
                    reply.extend_from_slice(CONTENT);
                    reply
                }
                _ => return Ok(()),
            };
            stream.write_all(&reply).await?;
            stream.shutdown().await?;
            Ok(())
        })
    })
}

fn paths(paths: &[&str]) -> Vec<u8> {
    let hash = ContentHash::of(CONTENT);
    manifest(&paths.iter().map(|path| (*path, CONTENT.len() as u64, hash)).collect::<Vec<_>>())
}

#[test]
fn a_good_manifest_made_in_this_way_is_taken() -> Result<()> {
    let lab = Lab::new()?;
    let peer = sharer(paths(&["a/b", "c"]))?;
    let outcome = crate::witness::get(&lab, &peer.address_of("folder"))?;
    let fetched = outcome.fetched()?;
    ensure!(std::fs::read(fetched.path.join("a/b"))? == CONTENT, "not what was sent");
    Ok(())
}

#[test]
fn paths_that_lead_elsewhere_are_refused() -> Result<()> {
    let wrong: &[&[&str]] = &[
        &["../evil"],
        &["a/../../evil"],
        &["/tmp/keyferry-evil"],
        &["//evil"],
        &["."],
        &[".."],
        &[""],
        &["a//b"],
        &["a/"],
        &["./a"],
        &["a\0b"],
        &["a", "a/b"],
        &["b", "a"],
        &["\u{1b}[2Jb", "\u{1b}[2Ja"],
        &["a\u{202e}b", "a\u{202e}a"],
        &["a", "a"],
    ];
    each(wrong, |paths_of_it| {
        let lab = Lab::new()?;
        let peer = sharer(paths(paths_of_it))?;
        let failure = refused(&lab, &peer.address_of("folder"))?;
        // What a stranger wrote must not reach the terminal as it is.
        ensure!(!failure.contains('\u{1b}') && !failure.contains('\u{202e}'), "{failure}");
        ensure!(!lab.path("evil").exists(), "it was written");
        Ok(())
    })?;
    ensure!(!std::path::Path::new("/tmp/keyferry-evil").exists(), "an absolute path was written");
    Ok(())
}

/// A name of one system may be a path, or a device, on another. Here it is a name, and stays in the folder.
#[test]
fn names_that_mean_something_on_other_systems_arrive_as_they_are() -> Result<()> {
    let names = [
        "C:\\evil",
        "COM1",
        "README",
        "\u{1b}[2Jevil",
        "\\\\server\\evil",
        "a\nb",
        "file.",
        "invoice\u{202e}fdp.exe",
        "readme",
    ];
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let lab = Lab::new()?;
    let peer = sharer(paths(&sorted))?;
    let outcome = crate::witness::get(&lab, &peer.address_of("folder"))?;
    let fetched = outcome.fetched()?;
    let mut found: Vec<_> =
        std::fs::read_dir(&fetched.path)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    found.sort_unstable();
    ensure!(found == sorted, "{found:?}");
    Ok(())
}

#[test]
fn links_that_lead_out_are_refused_and_nothing_is_written_through_one() -> Result<()> {
    let content = ContentHash::of(CONTENT);
    let file = |depth, name: &str, bytes: &mut Vec<u8>| {
        entry(1, depth, name, &[&[0; 8], &(CONTENT.len() as u64).to_le_bytes(), content.as_bytes()], bytes);
    };
    let with = |make: &dyn Fn(&mut Vec<u8>), count| {
        let mut bytes = Vec::new();
        make(&mut bytes);
        listed(count, bytes)
    };
    let wrong = [
        with(&|bytes| link(0, "l", "/tmp", bytes), 1),
        with(&|bytes| link(0, "l", "..", bytes), 1),
        with(&|bytes| link(0, "l", "x/../..", bytes), 1),
        with(&|bytes| link(0, "l", "", bytes), 1),
        // Through a link that goes down and up again.
        with(&|bytes| (link(0, "a", ".", bytes), link(0, "l", "a/..", bytes)).1, 2),
        // A link in the place of the folder that a file goes to.
        with(&|bytes| (link(0, "d", "x", bytes), file(1, "evil", bytes)).1, 2),
        with(&|bytes| (link(0, "d", "x", bytes), entry(0, 0, "d", &[&[0; 8]], bytes), file(1, "evil", bytes)).2, 3),
    ];
    each(&wrong, |bytes| {
        let lab = Lab::new()?;
        let peer = sharer(bytes.clone())?;
        refused(&lab, &peer.address_of("folder")).map(drop)
    })
}

#[test]
fn folders_without_end_are_refused_before_one_is_made() -> Result<()> {
    let lab = Lab::new()?;
    // Each path has 200 components, none of which another has.
    let deep: Vec<String> = (0..1000).map(|number| format!("{number:04}{}", "/d".repeat(199))).collect();
    let peer = sharer(paths(&deep.iter().map(String::as_str).collect::<Vec<_>>()))?;

    let failure = refused(&lab, &peer.address_of("folder"))?;

    ensure!(failure.contains("lies in more than 63 folders"), "{failure}");
    Ok(())
}

/// The greatest resident size that this process has had, in bytes.
fn peak_resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

#[test]
fn the_longest_list_of_files_is_read_and_laid_out_in_less_than_256_mib() -> Result<()> {
    let longest = (MAX_MANIFEST_LEN - HEADER_LEN - 4) / MAX_ENTRIES - (3 + 8 + 8 + 32);
    let mut bytes = Vec::with_capacity(MAX_MANIFEST_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 9]);
    bytes.extend_from_slice(&(MAX_ENTRIES as u32).to_le_bytes());
    for number in 0..MAX_ENTRIES as u32 {
        let mut hash = [0xa5; 32];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        let size = (1_u64 << 30).to_le_bytes();
        entry(1, 0, &format!("{number:0longest$}"), &[&[0; 8], &size, &hash], &mut bytes);
    }

    let manifest = Manifest::decode(&bytes)?;
    let (hash, size) = (ContentHash::from_bytes([1; 32]), bytes.len() as u64);
    drop(bytes);
    let layout = Layout::collection(hash, size, &manifest)?;

    ensure!(layout.items().len() == MAX_ENTRIES + 1, "{} items", layout.items().len());
    let peak = peak_resident()?;
    ensure!(peak < 256 << 20, "{} MiB", peak >> 20);
    Ok(())
}

#[test]
fn sizes_and_hashes_that_do_not_go_together_are_refused() -> Result<()> {
    let hash = ContentHash::of(CONTENT);
    let wrong = [
        &[("a", 0, hash)][..],
        &[("a", 5, ContentHash::EMPTY)],
        &[("a", 14, hash), ("b", 15, hash)],
        &[("a", u64::MAX, hash), ("b", u64::MAX, ContentHash::of(b"b"))],
    ];
    each(&wrong, |entries| {
        let lab = Lab::new()?;
        let peer = sharer(manifest(entries))?;
        refused(&lab, &peer.address_of("folder")).map(drop)
    })
}

#[test]
fn what_is_no_manifest_at_all_is_refused() -> Result<()> {
    let endless = listed(u32::MAX, Vec::new());
    let mut long = paths(&["a"]);
    long.push(0);
    each(&[b"just a text".to_vec(), MAGIC.to_vec(), endless, long, vec![0; 70_000]], |bytes| {
        let lab = Lab::new()?;
        let peer = sharer(bytes.clone())?;
        refused(&lab, &peer.address_of("folder")).map(drop)
    })
}
