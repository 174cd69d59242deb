//! Sharing, and the end of it.
//!
//! What it is not: reading files (see `content::store`), or telling the network (see [`super::announcer`]).

use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use keyferry_proto::{
    address::{Address, ShareName},
    collection::ShownPath,
    hash::ContentHash,
    identity::NodeKey,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{ContactInfo, Event, FetcherInfo, RootInfo, ShareInfo, Shared},
    events::{EventPace, Events, tell},
};
use crate::{
    base::data_dir::{ContactList, ContactsFile},
    content::{
        store::{Audience, ImportOptions, ImportProgress, LeftOut, Root, RootOrigin, RootState, Store, StoreError},
        transfer::fetchers::SentOfRoot,
    },
};

/// How something is to be shared.
#[derive(Debug, Clone)]
pub(super) struct NewShare {
    /// Under this name; by default that of its file.
    pub(super) name: Option<ShareName>,
    /// To these; by default to those to whom what had the name before was offered, or else everyone.
    pub(super) audience: Option<Audience>,
    pub(super) options: ImportOptions,
}

impl Node {
    pub(super) async fn share_all(
        &self,
        paths: Vec<PathBuf>,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        if share.name.is_some() && paths.len() > 1 {
            return Err(Error::OneNameForMany);
        }
        let named = paths.iter().map(|path| Ok((path.clone(), name_for(path, share.name.as_ref())?)));
        let named = named.collect::<Result<Vec<_>, Error>>()?;
        self.quick(move |store| check_names(store, &named)).await?;
        for path in paths {
            let shared = self.share_path(path, share.clone(), events, cancel).await?;
            tell(events, Event::Shared(shared)).await;
        }
        Ok(())
    }

    /// Imports one path and puts it into the catalogue; by default under the name of its file.
    pub(super) async fn share_path(
        &self,
        path: PathBuf,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Shared, Error> {
        let name = name_for(&path, share.name.as_ref())?;
        let root = self.import(path, name.clone(), share, events, cancel).await?;
        self.tell_of_changed_roots();
        let Root { hash, format, size, files, state, .. } = root;
        let audience = match state {
            RootState::Shared { audience, .. } => audience,
            RootState::Seeded | RootState::Kept => return Err(Error::NotSharedHere { name }),
        };
        let address = Address::named(self.key(), name.clone());
        let address_with_hints = address.clone().with_hints(self.hints()).unwrap_or_else(|_| address.clone());
        Ok(Shared { name, hash, format, size, files, audience, address, address_with_hints })
    }

    async fn import(
        &self,
        path: PathBuf,
        name: ShareName,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Root, Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (events, pace) = (events.clone(), EventPace::default());
        let left_out_to = events.clone();
        let imported = self.blocking(cancel, &cancelled, {
            let cancelled = Arc::clone(&cancelled);
            move |store| {
                let progress = |progress: ImportProgress| {
                    if pace.is_due() {
                        // A front end that is behind misses some progress, no more.
                        let _ = events.try_send(Event::Importing {
                            done_bytes: progress.done_bytes,
                            total_bytes: progress.total_bytes,
                            done_files: progress.done_files,
                            total_files: progress.total_files,
                        });
                    }
                };
                store.import(&path, &name, share.audience.as_ref(), share.options, &progress, &cancelled)
            }
        });
        let imported = match imported.await {
            Err(Error::Store(StoreError::LeavesOut { path, left_out })) => {
                tell_left_out(&left_out, &left_out_to).await;
                return Err(StoreError::LeavesOut { path, left_out }.into());
            }
            imported => imported?,
        };
        tell_left_out(&imported.left_out, &left_out_to).await;
        Ok(imported.root)
    }

    /// Takes a name out of the catalogue. The content is offered no more, also where it is being sent, and is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotSharedHere`] if there is no such name.
    pub async fn unshare(&self, name: &ShareName) -> Result<(), Error> {
        let unwanted = name.clone();
        match self.quick(move |store| store.unshare(&unwanted)).await? {
            Some(_) => self.tell_of_changed_roots(),
            None => return Err(Error::NotSharedHere { name: name.clone() }),
        }
        Ok(())
    }

    /// Ends every offer of a content, under whatever name, also where it is being sent. It is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotOfferedHere`] if it is not offered.
    pub async fn withdraw(&self, hash: &ContentHash) -> Result<(), Error> {
        let hash = *hash;
        match self.quick(move |store| store.withdraw(&hash)).await? {
            true => self.tell_of_changed_roots(),
            false => return Err(Error::NotOfferedHere { hash }),
        }
        Ok(())
    }

    pub(super) async fn shares(&self, events: &Events) -> Result<(), Error> {
        let file = ContactsFile::of(self.home.root());
        let contacts = self.quick(move |_| file.read()).await?;
        let offered = self.store.roots().into_iter().filter(|root| root.state != RootState::Kept);
        let mut count = 0;
        for root in offered {
            let fetched = fetchers(&self.server.sent_of(&root.hash), &contacts);
            let named_contacts = named_contacts(&root, &contacts);
            tell(events, Event::Share(ShareInfo { root: root_info(root), named_contacts, fetched })).await;
            count += 1;
        }
        tell(events, Event::Shares { count }).await;
        Ok(())
    }
}

/// The name that a path is shared under: the one that is wanted, or else that of its file.
fn name_for(path: &Path, wanted: Option<&ShareName>) -> Result<ShareName, Error> {
    if let Some(wanted) = wanted {
        return Ok(wanted.clone());
    }
    let name = path.file_name().ok_or_else(|| Error::NoShareName { path: path.to_owned() })?;
    Ok(ShareName::from_file_name(name.as_bytes()))
}

/// What is told of a root.
pub(super) fn root_info(root: Root) -> RootInfo {
    let (path, followed) = match root.origin {
        RootOrigin::InPlace { path, followed, .. } => (Some(path), followed),
        RootOrigin::Fetched { path } => (Some(path), false),
        RootOrigin::Copied => (None, false),
    };
    let Root { state, hash, format, size, files, .. } = root;
    RootInfo { state, hash, format, size, files, path, followed }
}

fn named_contacts(root: &Root, contacts: &ContactList) -> Vec<ContactInfo> {
    let RootState::Shared { audience: Audience::Only(invited), .. } = &root.state else { return Vec::new() };
    let contact = |node: &NodeKey| {
        contacts.name_of(node).map(|name| ContactInfo { node: node.to_string(), name: name.to_string() })
    };
    invited.nodes().iter().filter_map(contact).collect()
}

fn fetchers(sent: &SentOfRoot, contacts: &ContactList) -> Vec<FetcherInfo> {
    let one_by_one = sent.nodes().into_iter().map(|to| FetcherInfo {
        node: Some(to.node.to_string()),
        contact: contacts.name_of(&to.node).map(ToString::to_string),
        bytes: to.sent.bytes,
        last: to.sent.last.0,
    });
    let others = sent.others();
    let others = FetcherInfo { node: None, contact: None, bytes: others.bytes, last: others.last.0 };
    one_by_one.chain((others.bytes > 0).then_some(others)).collect()
}

/// Finds that no two of these paths would have one name, and that none has a name that stands for another path.
fn check_names(store: &Store, named: &[(PathBuf, ShareName)]) -> Result<(), Error> {
    let mut taken: HashMap<ShareName, PathBuf> = HashMap::new();
    for root in store.roots() {
        if let (Some(name), RootOrigin::InPlace { path, .. }) = (root.name(), &root.origin)
            // What was moved, or is gone, gives way to what has its name now.
            && path.exists()
        {
            taken.insert(name.clone(), path.clone());
        }
    }
    for (path, name) in named {
        // One that is not there is told when it is read.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        match taken.insert(name.clone(), path.clone()) {
            Some(first) if first != path => {
                return Err(Error::NameTaken { name: name.clone(), first, second: path });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells all that was left out of a folder, and why.
async fn tell_left_out(left_out: &LeftOut, to: &Events) {
    for (path, why) in &left_out.listed {
        let message = format!("left out {}: {why}", ShownPath(path.as_os_str().as_bytes()));
        tell(to, Event::Notice { message }).await;
    }
    match left_out.count - left_out.listed.len() as u64 {
        0 => {}
        more => tell(to, Event::Notice { message: format!("left out {more} more") }).await,
    }
}
