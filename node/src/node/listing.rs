//! `ls`: what a node shows of its shares, and what is in a folder that it shares.
//!
//! What it is not: a fetch (`remote`).

use keyferry_proto::{
    address::Address,
    catalogue::CatalogueEntry,
    collection::Manifest,
    hash::{ContentFormat, ContentHash},
    identity::NodeKey,
    message::{CatalogueReply, MAX_CATALOGUE_ENTRIES, Request},
};
use libp2p::Multiaddr;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node, Offence,
    api::{Entry, Event, FolderEntry, FolderEntryKind, NodeAddress, Wait},
    events::{Events, steps_to, tell},
    remote::{Resolved, ask, broken, path_info, reply, verified},
};
use crate::{
    connect::trace::Trace,
    content::{
        store::Root,
        transfer::{
            FetchError,
            describing::ContentDescription,
            listing::{ListedEntry, ListedKind, list},
        },
    },
};

impl Node {
    /// Tells each entry of a node's catalogue, and how many there are.
    pub(super) async fn list_to(
        &self,
        of: &NodeAddress,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        if of.node == self.key() {
            return Ok(self.list_own(events).await);
        }
        tokio::select! {
            listed = self.list_remote(of.node, &of.hints, events) => listed,
            () = cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    async fn list_own(&self, events: &Events) -> u64 {
        let mut count = 0;
        for root in self.store.roots() {
            if let Some(name) = root.name().cloned() {
                let Root { hash, format, size, files, attributes, .. } = root;
                tell(events, entry_event(CatalogueEntry { name, hash, format, size, files, attributes })).await;
                count += 1;
            }
        }
        count
    }

    async fn list_remote(&self, node: NodeKey, hints: &[Multiaddr], events: &Events) -> Result<u64, Error> {
        tell(events, Event::Stage { message: format!("looking for {}", node.short()) }).await;
        let trace = Trace::Words(steps_to(events));
        let session = self.online()?.finder.connect(node, hints, &trace).await?;
        tell(events, Event::Connected(path_info(&session))).await;
        let mut stream = ask(&session, &Request::Catalogue).await?;
        for count in 0..=MAX_CATALOGUE_ENTRIES {
            match reply(&session, &mut stream).await? {
                CatalogueReply::Entry(entry) => tell(events, entry_event(verified(&entry, &node)?)).await,
                CatalogueReply::End { count: told } if told == count => return Ok(count),
                CatalogueReply::End { .. } => return Err(broken(&session, Offence::Incomplete)),
                CatalogueReply::Refused(why) => return Err(Error::CatalogueRefused { node, why }),
            }
        }
        Err(broken(&session, Offence::TooManyEntries { limit: MAX_CATALOGUE_ENTRIES }))
    }

    /// Tells what is in the folder that an address names, or at a path in it, and how much there is.
    pub(super) async fn list_folder_to(
        &self,
        address: &Address,
        wait: Wait,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let listing = async {
            let (_, manifest) = self.list_of_files(address, wait, events).await?;
            let path = address.path().cloned();
            let entries = self.quick(move |_| list(&manifest, path.as_ref())).await?;
            let count = entries.len() as u64;
            for entry in entries {
                tell(events, Event::FolderEntry(folder_entry(entry))).await;
            }
            Ok(count)
        };
        cancel.run_until_cancelled(listing).await.unwrap_or(Err(Error::Interrupted))
    }

    /// A folder and its list of files: the one that is here, or its node's.
    pub(super) async fn list_of_files(
        &self,
        address: &Address,
        wait: Wait,
        events: &Events,
    ) -> Result<(ContentHash, Manifest), Error> {
        let Resolved { hash, format, session, .. } = self.resolve(address, wait, events).await?;
        let is_a_file = || Error::IsAFile { address: address.clone() };
        if format == Some(ContentFormat::Blob) {
            return Err(is_a_file());
        }
        let here = self.quick(move |store| Ok::<_, FetchError>(store.manifest(&hash).ok().flatten())).await?;
        match here {
            Some(manifest) => Ok((hash, manifest)),
            None => match self.describe(address, hash, format, session, wait, events).await? {
                ContentDescription::Folder(_, manifest) => Ok((hash, manifest)),
                ContentDescription::File(_) => Err(is_a_file()),
            },
        }
    }
}

fn entry_event(entry: CatalogueEntry) -> Event {
    let CatalogueEntry { name, hash, format, size, files, .. } = entry;
    Event::Entry(Entry { name, hash, format, size, files })
}

fn folder_entry(entry: ListedEntry) -> FolderEntry {
    let ListedEntry { name, kind, size, files, modified } = entry;
    let (kind, executable, target) = match kind {
        ListedKind::File(executable) => (FolderEntryKind::File, executable, None),
        ListedKind::Folder => (FolderEntryKind::Folder, false, None),
        ListedKind::Link(target) => (FolderEntryKind::Link, false, Some(target)),
    };
    FolderEntry { name, kind, size, files, modified_nanos: modified.map(|modified| modified.0), executable, target }
}
