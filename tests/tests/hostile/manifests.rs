//! Manifests that would write where they have no business: refused before one file is made.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use keyferry_proto::{
    codec,
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

/// Encodes a manifest without asking whether it is allowed.
pub(crate) fn manifest(entries: &[(&str, u64, ContentHash)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(path, size, hash)| (path.to_string(), *size, *hash, false)).collect();
    [&MAGIC[..], &codec::encode(&entries)].concat()
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
        &["C:\\evil"],
        &["C:evil"],
        &["\\\\server\\evil"],
        &["a\\..\\evil"],
        &["."],
        &[".."],
        &[""],
        &["a//b"],
        &["a/"],
        &["./a"],
        &["COM1"],
        &["a/com1.txt"],
        &["NUL"],
        &["COM\u{b9}"],
        &["file."],
        &["file "],
        &["a\0b"],
        &["a\nb"],
        &["\u{1b}[2Jevil"],
        &["invoice\u{202e}fdp.exe"],
        &["e\u{301}"],
        &["README", "readme"],
        &["STRASSE", "stra\u{df}e"],
        &["a", "a/b"],
        &["A/b", "a/c"],
        &["b", "a"],
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

#[test]
fn folders_without_end_are_refused_before_one_is_made() -> Result<()> {
    let lab = Lab::new()?;
    // The audit's: each path has 2,048 components, none of which another has.
    let deep: Vec<String> = (0..1000).map(|number| format!("{number:04}{}", "/d".repeat(2045))).collect();
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
    let longest = (MAX_MANIFEST_LEN - 24) / MAX_ENTRIES - (8 + 8 + 32 + 1);
    let mut bytes = Vec::with_capacity(MAX_MANIFEST_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(MAX_ENTRIES as u64).to_le_bytes());
    for number in 0..MAX_ENTRIES as u32 {
        let mut hash = [0xa5; 32];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(longest as u64).to_le_bytes());
        bytes.extend_from_slice(format!("{number:0longest$}").as_bytes());
        bytes.extend_from_slice(&(1_u64 << 30).to_le_bytes());
        bytes.extend_from_slice(&hash);
        bytes.push(0);
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
    let mut endless = MAGIC.to_vec();
    endless.extend_from_slice(&u64::MAX.to_le_bytes());
    let mut long = paths(&["a"]);
    long.push(0);
    each(&[b"just a text".to_vec(), MAGIC.to_vec(), endless, long, vec![0; 70_000]], |bytes| {
        let lab = Lab::new()?;
        let peer = sharer(bytes.clone())?;
        refused(&lab, &peer.address_of("folder")).map(drop)
    })
}
