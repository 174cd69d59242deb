//! What content is, by the word of whoever has it, and the list of files of a folder: no more of it is fetched.
//!
//! What it is not: a fetch; see [`super::fetch`].

use std::{io, time::Duration};

use keyferry_proto::{
    collection::{MAX_MANIFEST_LEN, Manifest},
    hash::{ContentFormat, ContentHash},
    message::{ContentHeader, ContentPart, ContentReply, ContentRequest, ItemStatus},
    transfer::{
        groups::{Expect, GroupDecoder},
        units::UnitRanges,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout, timeout_at},
};

use super::{
    FetchError, Lie, ProviderError,
    context::FoundSources,
    patience::Patience,
    receive::{ReceiveError, ask},
};
use crate::net::session::{ReadError, Session, read_message};

/// How long a provider may send nothing.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// What content is.
#[derive(Debug)]
pub enum ContentDescription {
    /// A file, of this many bytes by the word of a provider.
    File(u64),
    /// A folder: the bytes of its list of files, which were proven and can be read, and the list.
    Folder(Vec<u8>, Manifest),
}

/// Asks the providers that come, one at a time, until one describes the content. Without one, it waits for as long as `providers` is open.
///
/// # Errors
///
/// If none came, or the last one that came has failed and no other follows.
pub async fn describe(
    root: ContentHash,
    format: Option<ContentFormat>,
    mut providers: FoundSources,
) -> Result<ContentDescription, FetchError> {
    let (mut left, mut last) = (Duration::MAX, None);
    loop {
        let Some(session) = providers.next_within(left).await else { return Err(FetchError::in_vain(root, last)) };
        match ask_what_it_is(&session, root, format).await {
            Ok(description) => return Ok(description),
            Err(ReceiveError::Local(error)) => return Err(error),
            Err(ReceiveError::Provider(error)) => {
                tracing::debug!(%error, "a provider does not describe the content; another may");
                if let ProviderError::Refused(_) = error {
                    left = Patience::default().when_refused;
                }
                last = Some(error);
            }
        }
    }
}

/// Asks one provider what the content is.
pub(super) async fn ask_what_it_is(
    session: &Session,
    root: ContentHash,
    format: Option<ContentFormat>,
) -> Result<ContentDescription, ReceiveError> {
    let request = ContentRequest { root, ranges: UnitRanges::all(), part: ContentPart::Root };
    let mut stream = ask(session, request).await?;
    let ContentHeader { format: got, size } = read_header(&mut stream).await?;
    match (got, format) {
        (got, Some(signed)) if got != signed => Err(Lie::Format { got, signed }.into()),
        (ContentFormat::Blob, _) => Ok(ContentDescription::File(size)),
        (ContentFormat::Collection, _) if size > MAX_MANIFEST_LEN as u64 => Err(Lie::LongManifest { got: size }.into()),
        (ContentFormat::Collection, _) => {
            let bytes = read_list(&mut stream, root, size).await?;
            // Whoever signed that it is a folder is at fault, else who sent it.
            match (Manifest::decode(&bytes), format) {
                (Ok(manifest), _) => Ok(ContentDescription::Folder(bytes, manifest)),
                (Err(error), Some(_)) => Err(ReceiveError::Local(FetchError::HostileManifest(error))),
                (Err(error), None) => Err(Lie::Manifest(error).into()),
            }
        }
    }
}

/// Reads what a provider says of the content, first of all.
pub(super) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<ContentHeader, ReceiveError> {
    let reply = timeout(SILENCE, read_message(stream)).await.map_err(|_| ProviderError::Silent)?;
    match reply {
        Ok(Some(ContentReply::Header(header))) => Ok(header),
        Ok(Some(ContentReply::Refused(refusal))) => Err(ProviderError::Refused(refusal).into()),
        Ok(None) => Err(ProviderError::Connection(io::ErrorKind::UnexpectedEof.into()).into()),
        Err(ReadError::Message(error)) => Err(Lie::from(error).into()),
        Err(error) => Err(ProviderError::Connection(io::Error::other(error)).into()),
    }
}

/// Reads the status of an item, behind which its pieces follow, and says whether they have marks. Lists of files, and small files, have none.
pub(super) async fn read_status(
    stream: &mut (impl AsyncRead + Unpin),
    may_have_marks: bool,
) -> Result<bool, ReceiveError> {
    let mut status = [0];
    read_exact(stream, &mut status).await?;
    let status = ItemStatus::from_byte(status[0]).map_err(Lie::from)?;
    match if may_have_marks { status } else { status.without_marks().map_err(Lie::from)? } {
        ItemStatus::Data => Ok(false),
        ItemStatus::Sparse => Ok(true),
        ItemStatus::Refused(refusal) => Err(ProviderError::Refused(refusal).into()),
    }
}

async fn read_list(
    stream: &mut (impl AsyncRead + Unpin),
    root: ContentHash,
    size: u64,
) -> Result<Vec<u8>, ReceiveError> {
    read_status(stream, false).await?;
    let mut decoder = GroupDecoder::new(root, size, &UnitRanges::all())?;
    let mut list = Vec::new();
    while let Some(expected) = decoder.expects() {
        let mut bytes = vec![0; expected.len()];
        read_exact(stream, &mut bytes).await?;
        decoder.accept(&bytes)?;
        if let Expect::Leaf { .. } = expected {
            list.extend(bytes);
        }
    }
    Ok(list)
}

pub(super) async fn read_exact(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), ProviderError> {
    let deadline = Instant::now() + SILENCE;
    match timeout_at(deadline, stream.read_exact(bytes)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(ProviderError::Connection(error)),
        Err(_) => Err(ProviderError::Silent),
    }
}
