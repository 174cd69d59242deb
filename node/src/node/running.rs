//! Starting, running and stopping a node.
//!
//! What it is not: what each command does; see `commands`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
};

use keyferry_proto::identity::{NodeKey, NodeSecret};
use tokio::sync::{Notify, broadcast};

use super::{
    Error, NodeConfig,
    api::{Event, NodeAddress},
    following::{FollowedNode, Following},
};
use crate::{
    base::{
        data_dir::{AdmissionPolicy, ContactsFile, Home, KnownContacts},
        secret_text::SecretText,
    },
    content::{
        store::{Migrated, OpenReport, Store, StoreError},
        transfer::serve::ContentServer,
    },
    net::{port::DEFAULT_PORT, session},
    node::network::Online,
};

/// How much that happens waits for whoever shows it; who is slower misses some.
const MAX_HAPPENED: usize = 256;

/// How many files are named that an index does not find again.
const MAX_LOST_NAMED: usize = 20;

/// A running node. It holds the data folder until it is dropped.
pub struct Node {
    pub(super) home: Home,
    pub(super) secret: NodeSecret,
    pub(super) store: Store,
    pub(super) server: ContentServer,
    pub(super) announces: bool,
    pub(super) calls: AdmissionPolicy,
    pub(crate) online: Option<Online>,
    /// Signalled when the store's roots have changed.
    pub(super) roots_changed: Arc<Notify>,
    pub(super) received_bytes: AtomicU64,
    /// What happens that no command asked for.
    pub(super) happened: broadcast::Sender<Event>,
    following: OnceLock<Following>,
    /// What the owner has still to be told of how the node came up.
    pub(super) notices: Mutex<Vec<String>>,
}

impl Node {
    /// Opens the data folder, unlocks its key if need be, and starts a node on it.
    ///
    /// # Errors
    ///
    /// If the folder is in use or cannot be used, or the node cannot start.
    pub async fn open(folder: PathBuf, passphrase: Option<SecretText>, config: NodeConfig) -> Result<Arc<Self>, Error> {
        let opened = tokio::task::spawn_blocking(move || {
            let home = Home::open(&folder)?;
            let secret = match passphrase {
                Some(passphrase) => home.unlock(&passphrase)?,
                None => home.identity()?,
            };
            Ok::<_, Error>((home, secret))
        });
        let (home, secret) = opened.await??;
        Self::start(home, secret, config).await
    }

    /// Starts a node on a data folder that is open, with the key in it. Unless it is to be offline, it joins the network.
    ///
    /// # Errors
    ///
    /// If the store cannot be opened, or the port cannot be used.
    pub async fn start(home: Home, secret: NodeSecret, config: NodeConfig) -> Result<Arc<Self>, Error> {
        if !config.offline {
            session::gather_entropy();
        }
        let (root, own) = (home.root().to_owned(), secret.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let (store, report) = Store::open(&root)?;
            let server = ContentServer::new(store.clone(), own, KnownContacts::of(ContactsFile::of(&root)));
            Ok::<_, StoreError>((store, server, report))
        });
        let (store, server, report) = opened.await??;
        let roots_changed = Arc::new(Notify::new());
        let online = match config.offline {
            true => None,
            false => Some(Online::start(&config, &home, &secret, &store, &server, &roots_changed).await?),
        };
        let announces = (config.announce || config.relay.is_some()) && !config.offline;
        let received_bytes = AtomicU64::new(0);
        let calls = config.calls;
        let lost = lost_texts(&report);
        let migrated = report.migrated.map(migrated_text);
        let port = online.as_ref().map(|online| online.port.number());
        let elsewhere = port.filter(|port| announces && config.listen.is_empty() && *port != DEFAULT_PORT);
        let notices = Mutex::new(migrated.into_iter().chain(lost).chain(elsewhere.map(elsewhere_text)).collect());
        let happened = broadcast::Sender::new(MAX_HAPPENED);
        let node = Arc::new(Self {
            home,
            secret,
            store,
            server,
            announces,
            calls,
            online,
            roots_changed,
            received_bytes,
            happened: happened.clone(),
            following: OnceLock::new(),
            notices,
        });
        if node.announces {
            node.following.get_or_init(|| Following::begin(node.clone(), happened));
        }
        Ok(node)
    }

    /// Has everybody follow who depends on the store's roots.
    pub(super) fn tell_of_changed_roots(&self) {
        if let Some(online) = &self.online {
            online.offer_contents(&self.store);
        }
        self.roots_changed.notify_one();
    }

    /// The public key of this node.
    pub fn key(&self) -> NodeKey {
        self.secret.public()
    }

    /// The key of this node, and hints of where it is for those who cannot ask the DHT.
    pub fn address(&self) -> NodeAddress {
        NodeAddress { node: self.key(), hints: self.hints() }
    }

    /// Leaves the network in order. Sessions are closed; what was fetched and verified stays.
    pub async fn shutdown(&self) {
        if let Some(following) = self.following.get() {
            following.end();
        }
        if let Some(online) = &self.online {
            online.shutdown().await;
        }
        let (store, announces, is_offline) = (self.store.clone(), self.announces, self.online.is_none());
        let tidied = tokio::task::spawn_blocking(move || {
            store.forget_superseded();
            // Whoever only fetches is done when the content is there.
            if announces || is_offline {
                store.write_out_index();
            }
        });
        let _ = tidied.await;
    }

    /// The addresses that the node listens on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.online.as_ref().map(|online| online.port.local_addrs().to_vec()).unwrap_or_default()
    }
}

impl FollowedNode for Node {
    fn store(&self) -> &Store {
        &self.store
    }

    fn tell_of_newer(&self) {
        self.tell_of_changed_roots();
    }
}

fn migrated_text(Migrated { shared, kept, relisted }: Migrated) -> String {
    let relisted = match relisted {
        0 => None,
        some => Some(format!(
            "the lists of files of {} were of an earlier keyferry: they are made anew, and have other hashes now (names are as before); \
             share a folder again to have its links, empty folders and times in the list as well",
            count(some, "folder", "folders")
        )),
    };
    let states = (shared + kept > 0).then(|| states_text(shared, kept));
    [states, relisted].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn states_text(shared: u64, kept: u64) -> String {
    format!(
        "this keyferry offers only what is shared or seeded: of what is stored here, {} shared with everyone, and `ls` shows that to \
         contacts alone (`share --listed` to all); {} kept and no longer given to others (`keyferry store ls` says which)",
        count(shared, "item is", "items are"),
        count(kept, "item is", "items are"),
    )
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What is to be said of an index that was lost: that it is there again, and which files are not. A file that has gone in the meantime
/// while the index stood is the owner's own doing.
fn lost_texts(report: &OpenReport) -> Vec<String> {
    if !report.index_was_lost {
        return Vec::new();
    }
    let what = match &report.set_aside {
        Some(aside) => {
            format!("the index was damaged; it lies at {} (`keyferry store gc` removes it), and is", aside.display())
        }
        None => "the index was lost, and is".to_owned(),
    };
    let named = report.lost.iter().take(MAX_LOST_NAMED);
    let mut texts = vec![format!("{what} made again from what is stored here")];
    texts.extend(named.map(|path| format!("gone, or changed since it was shared or fetched: {}", path.display())));
    match report.lost_count.saturating_sub(MAX_LOST_NAMED as u64) {
        0 => {}
        more => texts.push(format!("{more} more are gone or changed; `keyferry store verify` names all")),
    }
    texts
}

fn elsewhere_text(port: u16) -> String {
    format!(
        "port {DEFAULT_PORT} is in use by another program, so this node listens at {port}: what a router forwards to \
         {DEFAULT_PORT} does not come here (`--listen PORT` says which port to take)"
    )
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.key())
    }
}
