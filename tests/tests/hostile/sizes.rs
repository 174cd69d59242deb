//! Lies about size: in the catalogue, in the header, in a manifest.

use std::sync::Arc;

use anyhow::Result;
use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    identity::NodeSecret,
    message::Request,
    transfer::groups::MAX_BLOB_SIZE,
};
use keyferry_tests::{
    content,
    hostile::{Answer, Blobs, Peer, header, resolved},
    lab::Lab,
};
use tokio::io::AsyncWriteExt;

use crate::{
    manifests::manifest,
    witness::{each, refused, refused_for_want_of_room},
};

const KEY: u8 = 4;
const TERABYTES: u64 = 1 << 43;
/// More than any answer of these peers, and less than there is room for.
const GIGABYTE: u64 = 1 << 30;

/// A peer whose catalogue says `catalogue_size`, whose header says `header_size`, and which sends the truth then.
fn liar(data: Vec<u8>, format: ContentFormat, catalogue_size: u64, header_size: u64) -> Result<Peer> {
    let mut blobs = Blobs::default();
    let hash = blobs.add(data);
    let blobs = Arc::new(blobs);
    Peer::start(KEY, move |request, mut stream| -> Answer {
        let blobs = blobs.clone();
        Box::pin(async move {
            let reply = match request {
                Request::Resolve(name) => {
                    resolved(&NodeSecret::from_bytes(&[KEY; 32]), name.as_str(), hash, format, catalogue_size)
                }
                Request::Content(request) => {
                    let truth = blobs.reply(&request, format)?;
                    [&header(format, header_size)[..], &truth[header(format, 0).len()..]].concat()
                }
                _ => return Ok(()),
            };
            stream.write_all(&reply).await?;
            // More and more, as terabytes would be.
            for _ in 0..256 {
                stream.write_all(&[0; 65536]).await?;
            }
            stream.shutdown().await?;
            Ok(())
        })
    })
}

#[test]
fn a_header_that_says_another_size_is_found() -> Result<()> {
    let data = content::random_bytes(1, 200_000);
    let sizes = [0, 1, 199_999, 200_001, 65_536, TERABYTES, MAX_BLOB_SIZE, MAX_BLOB_SIZE + 1, u64::MAX];
    let formats = [ContentFormat::Blob, ContentFormat::Collection];
    let cases: Vec<_> = sizes.iter().flat_map(|size| formats.map(|format| (*size, format))).collect();
    each(&cases, |&(size, format)| {
        let lab = Lab::new()?;
        let peer = liar(data.clone(), format, 200_000, size)?;
        refused(&lab, &peer.address_of("file")).map(drop)
    })
}

#[test]
fn a_catalogue_that_says_terabytes_costs_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let data = content::random_bytes(2, 200_000);
    let peer = liar(data.clone(), ContentFormat::Blob, TERABYTES, TERABYTES)?;
    refused_for_want_of_room(&lab, &peer.address_of("file"))?;
    let peer = liar(data, ContentFormat::Blob, GIGABYTE, GIGABYTE)?;
    refused(&lab, &peer.address_of("file")).map(drop)
}

#[test]
fn a_manifest_that_says_terabytes_costs_nothing() -> Result<()> {
    // The manifest proves itself; that its file has terabytes, it cannot.
    each(&[GIGABYTE, TERABYTES, MAX_BLOB_SIZE, MAX_BLOB_SIZE + 1, u64::MAX], |&size: &u64| {
        let lab = Lab::new()?;
        let bytes = manifest(&[("huge", size, ContentHash::of(b"something"))]);
        let len = bytes.len() as u64;
        let peer = liar_with_manifest(bytes, len)?;
        match size {
            TERABYTES | MAX_BLOB_SIZE => refused_for_want_of_room(&lab, &peer.address_of("folder")),
            _ => refused(&lab, &peer.address_of("folder")).map(drop),
        }
    })
}

/// A peer that sends a manifest, then says that data follows, and sends zeros.
fn liar_with_manifest(bytes: Vec<u8>, len: u64) -> Result<Peer> {
    let hash = ContentHash::of(&bytes);
    Peer::start(KEY, move |request, mut stream| -> Answer {
        let bytes = bytes.clone();
        Box::pin(async move {
            let secret = NodeSecret::from_bytes(&[KEY; 32]);
            let format = ContentFormat::Collection;
            match request {
                Request::Resolve(name) => {
                    stream.write_all(&resolved(&secret, name.as_str(), hash, format, TERABYTES)).await?;
                    stream.shutdown().await?;
                }
                Request::Content(_) => {
                    stream.write_all(&header(format, len)).await?;
                    stream.write_all(&[&[0][..], &bytes, &[0]].concat()).await?;
                    for _ in 0..256 {
                        stream.write_all(&[0; 65536]).await?;
                    }
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            Ok(())
        })
    })
}
