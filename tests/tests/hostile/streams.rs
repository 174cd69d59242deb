//! Content that is corrupted, cut short, over-long or never-ending, and peers that fall silent.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use keyferry::net::session::SessionStream;
use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    identity::NodeSecret,
    message::{CatalogueReply, Message, Refusal, Request},
};
use keyferry_tests::{
    content,
    hostile::{Answer, Blobs, Peer, header, resolved},
    lab::{Lab, TRANSFER},
};
use tokio::io::AsyncWriteExt;

use crate::witness::{each, refused};

const KEY: u8 = 3;
const SIZE: usize = 1_000_000;

/// A peer that has one file, and sends what `lie` makes of the truth.
fn liar(key: u8, data: Vec<u8>, lie: impl Fn(Vec<u8>) -> Lie + Send + Sync + 'static) -> Result<(Peer, ContentHash)> {
    let mut blobs = Blobs::default();
    let size = data.len() as u64;
    let hash = blobs.add(data);
    let (blobs, lie) = (Arc::new(blobs), Arc::new(lie));
    let peer = Peer::start(key, move |request, stream| -> Answer {
        let (blobs, lie) = (blobs.clone(), lie.clone());
        Box::pin(async move {
            match request {
                Request::Resolve(name) => {
                    let secret = NodeSecret::from_bytes(&[key; 32]);
                    send(stream, &resolved(&secret, name.as_str(), hash, ContentFormat::Blob, size)).await
                }
                Request::Content(request) => tell(stream, lie(blobs.reply(&request, ContentFormat::Blob)?)).await,
                _ => Ok(()),
            }
        })
    })?;
    Ok((peer, hash))
}

enum Lie {
    /// These bytes, and a proper end.
    Send(Vec<u8>),
    /// These bytes, and then nothing for ever.
    Stall(Vec<u8>),
    /// These bytes, and then zeros for ever.
    Shout(Vec<u8>),
    /// These bytes, and then a reset.
    Reset(Vec<u8>),
    /// These bytes, one in a while.
    Drip(Vec<u8>),
}

async fn tell(mut stream: SessionStream, lie: Lie) -> Result<()> {
    match lie {
        Lie::Send(bytes) => send(stream, &bytes).await,
        Lie::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Lie::Shout(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(&[0; 65536]).await?;
            }
        }
        Lie::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(())
        }
        Lie::Drip(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Ok(())
        }
    }
}

async fn send(mut stream: SessionStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    Ok(())
}

#[test]
fn the_truth_is_believed() -> Result<()> {
    let lab = Lab::new()?;
    let data = content::random_bytes(1, SIZE);
    let (peer, hash) = liar(KEY, data.clone(), Lie::Send)?;
    let out = lab.folder("out")?;
    let outcome = lab.get("getter", peer.address_of("file"), &out)?;
    ensure!(std::fs::read(&outcome.fetched()?.path)? == data, "not what was sent");
    let outcome = lab.get("other", peer.address_of_content(hash), &lab.folder("out2")?)?;
    ensure!(std::fs::read(&outcome.fetched()?.path)? == data, "not what was sent");
    Ok(())
}

#[test]
fn a_flipped_bit_anywhere_is_found() -> Result<()> {
    each(&[0, 4, 9, 20, 21, 30, 90, 5_000, 400_000, 999_999], |&at: &usize| {
        let lab = Lab::new()?;
        let (peer, _) = liar(KEY, content::random_bytes(2, SIZE), move |mut bytes| {
            bytes[at] ^= 0x10;
            Lie::Send(bytes)
        })?;
        refused(&lab, &peer.address_of("file")).map(drop)
    })
}

#[test]
fn a_stream_that_is_cut_short_is_found() -> Result<()> {
    each(&[0, 3, 12, 70, 65_000, 500_000, 999_999], |&keep: &usize| {
        let lab = Lab::new()?;
        let data = content::random_bytes(3, SIZE);
        let (peer, _) = liar(KEY, data.clone(), move |mut bytes| {
            bytes.truncate(keep);
            if keep % 2 == 0 { Lie::Send(bytes) } else { Lie::Reset(bytes) }
        })?;
        // Asked again for the rest, the peer may send all of it: then the file is right. Otherwise there is none.
        let outcome = crate::witness::get(&lab, &peer.address_of("file"))?;
        match outcome.fetched() {
            Ok(fetched) => ensure!(std::fs::read(&fetched.path)? == data, "not what was shared"),
            Err(_) => {
                outcome.failure()?;
                content::unfinished(&lab.path("out"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn what_follows_the_content_does_no_harm() -> Result<()> {
    let lab = Lab::new()?;
    let data = content::random_bytes(4, SIZE);
    let (peer, _) = liar(KEY, data.clone(), |mut bytes| {
        bytes.extend_from_slice(&[7; 100_000]);
        Lie::Shout(bytes)
    })?;
    // All that was asked for came, and is right: whether the rest counts against the peer is the getter's business.
    let outcome = crate::witness::get(&lab, &peer.address_of("file"))?;
    match outcome.fetched() {
        Ok(fetched) => ensure!(std::fs::read(&fetched.path)? == data, "not what was sent"),
        Err(_) => drop(outcome.failure()?),
    }
    Ok(())
}

#[test]
fn heavy_never_ending_and_silent_peers_are_left() -> Result<()> {
    let after: [fn(Vec<u8>) -> Lie; 4] = [
        |_| Lie::Stall(Vec::new()),
        |mut bytes| {
            bytes.truncate(300_000);
            Lie::Stall(bytes)
        },
        |_| Lie::Shout(header(ContentFormat::Blob, 1 << 45)),
        Lie::Drip,
    ];
    each(&[0, 1, 2, 3], |&index: &usize| {
        let lab = Lab::new()?;
        let (peer, _) = liar(KEY, content::random_bytes(5, SIZE), after[index])?;
        refused(&lab, &peer.address_of("file")).map(drop)
    })
}

#[test]
fn a_frame_that_announces_gigabytes_is_refused() -> Result<()> {
    each(&[(0xff, 4), (0xff, 1 << 20), (0, 1 << 20)], |&(byte, len): &(u8, usize)| {
        let lab = Lab::new()?;
        let (peer, hash) = liar(KEY, content::random_bytes(6, 1000), move |_| Lie::Shout(vec![byte; len]))?;
        refused(&lab, &peer.address_of_content(hash))?;
        let peer = Peer::start(KEY, move |_, stream| Box::pin(tell(stream, Lie::Shout(vec![byte; len]))))?;
        refused(&lab, &peer.address_of("file")).map(drop)
    })
}

#[test]
fn a_refusal_is_said() -> Result<()> {
    let lab = Lab::new()?;
    let refusal = keyferry_proto::message::ContentReply::Refused(Refusal::NotFound).to_frame();
    let (peer, hash) = liar(KEY, content::random_bytes(7, 1000), move |_| Lie::Send(refusal.clone()))?;
    refused(&lab, &peer.address_of_content(hash))?;
    Ok(())
}

#[test]
fn an_entry_that_another_key_signed_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let data = content::random_bytes(8, 1000);
    let hash = ContentHash::of(&data);
    for (secret, name) in [(NodeSecret::from_bytes(&[99; 32]), "file"), (NodeSecret::from_bytes(&[KEY; 32]), "another")]
    {
        let peer = Peer::start(KEY, move |_, stream| -> Answer {
            let reply = resolved(&secret, name, hash, ContentFormat::Blob, 1000);
            Box::pin(async move { send(stream, &reply).await })
        })?;
        refused(&lab, &peer.address_of("file"))?;
    }
    Ok(())
}

#[test]
fn heavy_an_endless_catalogue_is_not_listened_to() -> Result<()> {
    let lab = Lab::new()?;
    let hash = ContentHash::of(b"x");
    let peer = Peer::start(KEY, move |_, mut stream| -> Answer {
        Box::pin(async move {
            let secret = NodeSecret::from_bytes(&[KEY; 32]);
            for number in 0_u64.. {
                let name = format!("file-{number}").parse()?;
                let entry = keyferry_proto::catalogue::CatalogueEntry {
                    name,
                    hash,
                    format: ContentFormat::Blob,
                    size: 1,
                    attributes: None,
                    files: 1,
                };
                let entry = keyferry_proto::catalogue::SignedEntry::sign(&entry, &secret);
                stream.write_all(&CatalogueReply::Entry(entry).to_frame()).await?;
            }
            Ok(())
        })
    })?;
    let node = format!("keyferry:{}?{}", peer.node(), peer.hint());
    lab.start("reader", ["ls", &node])?.finish(TRANSFER * 2)?.failure()?;
    Ok(())
}

#[test]
fn with_an_honest_provider_beside_it_a_liar_only_costs_time() -> Result<()> {
    let lab = Lab::new()?;
    let data = content::random_bytes(9, 8 << 20);
    std::fs::write(lab.path("file"), &data)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("file"))?;
    let (liar, hash) = liar(KEY, data, |mut bytes| {
        bytes[100_000] ^= 1;
        Lie::Send(bytes)
    })?;
    ensure!(hash == shared.hash, "{hash} is not {}", shared.hash);
    let hinted = shared.address_with_hints.to_string();
    let (_, honest) = hinted.split_once('?').unwrap_or_default();
    let address = format!("keyferry:{hash}?{}&{honest}", liar.hint());

    let outcome = lab.get("getter", &address, &lab.folder("out")?)?;

    content::same(&lab.path("file"), &outcome.fetched()?.path)
}
