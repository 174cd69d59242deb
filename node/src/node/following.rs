//! Shares that follow their folders: a change makes a new version of the name by itself.
//!
//! What it is not: the noticing of changes (`crate::content::watching`), or the reading of files (`crate::content::store`).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use keyferry_proto::address::ShareName;
use tokio::{sync::broadcast, task::JoinHandle, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::{Event, RenewedInfo};
use crate::content::{
    store::{Renewed, Store, StoreError},
    watching::{Settling, TreeWatcher, WatchMeans},
};

/// How many shares are followed at once; further ones stay as they are.
const MAX_FOLLOWED: usize = 256;

/// The node whose shares are followed.
pub(super) trait FollowedNode: Send + Sync {
    /// Its store.
    fn store(&self) -> &Store;

    /// Has everybody follow who depends on what is shared.
    fn tell_of_newer(&self);
}

/// Follows, until it is dropped, what is to be followed.
#[derive(Debug)]
pub(super) struct Following {
    stop: CancellationToken,
}

type Happened = broadcast::Sender<Event>;

impl Following {
    /// Begins for a node, as long as there is one.
    pub(super) fn begin(node: Arc<dyn FollowedNode>, happened: Happened) -> Self {
        let stop = CancellationToken::new();
        let (node, stopped) = (Arc::downgrade(&node), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(follow_all(node, happened, &stopped)).await });
        Self { stop }
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

/// One share that is followed. Dropping it ends that.
struct Followed {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        // A reading that is under way ends on its own thread.
        self.stop.cancel();
        self.task.abort();
    }
}

async fn follow_all(node: Weak<dyn FollowedNode>, happened: Happened, stop: &CancellationToken) {
    let mut followed: HashMap<(ShareName, PathBuf), Followed> = HashMap::new();
    let Some(mut roots) = node.upgrade().map(|node| node.store().watch_roots()) else { return };
    loop {
        let Some(wanted) = node.upgrade().map(|node| node.store().followed()) else { return };
        followed.retain(|share, follower| wanted.contains(share) && !follower.task.is_finished());
        for share in wanted {
            if followed.contains_key(&share) {
                continue;
            }
            if followed.len() == MAX_FOLLOWED {
                let message = format!("{} is not followed: {MAX_FOLLOWED} shares are already", share.0);
                tell(&happened, Event::Notice { message });
                break;
            }
            let stop = stop.child_token();
            let follower = Follower {
                node: node.clone(),
                name: share.0.clone(),
                path: share.1.clone(),
                happened: happened.clone(),
                stop: stop.clone(),
                told: None,
            };
            followed.insert(share, Followed { stop, task: tokio::spawn(follower.run()) });
        }
        if roots.changed().await.is_err() {
            return;
        }
    }
}

/// Follows one share.
struct Follower {
    node: Weak<dyn FollowedNode>,
    name: ShareName,
    path: PathBuf,
    happened: Happened,
    stop: CancellationToken,
    /// What was last told of what is in the way.
    told: Option<String>,
}

impl Follower {
    async fn run(mut self) {
        let mut watcher = watch(&self.path).await;
        let mut settling = Settling::default();
        // It may have changed while nobody looked.
        settling.changed(Instant::now());
        let mut means = WatchMeans::Told;
        loop {
            if watcher.means() != means {
                means = watcher.means();
                if let WatchMeans::Looking { why } = &means {
                    self.say(format!("{} is looked through every few seconds for changes: {why}", self.path.display()));
                }
            }
            let due = settling.due();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    let began = Instant::now();
                    settling.begin();
                    let Some(is_read) = self.read().await else { return };
                    settling.ended(began, Instant::now(), !is_read);
                    if watcher.is_outdated() {
                        watcher = watch(&self.path).await;
                        // What has changed in between was told to nobody.
                        settling.changed(Instant::now());
                    }
                }
                () = watcher.changed() => settling.changed(Instant::now()),
            }
        }
    }

    /// Makes a new version, if there is one. Says whether all could be read; none if there is nothing to follow any more.
    async fn read(&mut self) -> Option<bool> {
        let node = self.node.upgrade()?;
        let (store, name, path) = (node.store().clone(), self.name.clone(), self.path.clone());
        let cancelled = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&cancelled);
        let reading = tokio::task::spawn_blocking(move || store.renew(&name, &path, &stop));
        let ended = tokio::select! {
            ended = reading => ended.ok()?,
            () = self.stop.cancelled() => {
                cancelled.store(true, Ordering::Relaxed);
                return None;
            }
        };
        match ended {
            Ok(Renewed::Same) => self.told = None,
            Ok(Renewed::Newer(root)) => {
                self.told = None;
                node.tell_of_newer();
                let (name, format) = (self.name.clone(), root.format);
                let renewed = RenewedInfo { name, hash: root.hash, format, size: root.size, files: root.files };
                tell(&self.happened, Event::Renewed(renewed));
            }
            Ok(Renewed::Unfollowed) | Err(StoreError::Cancelled) => return None,
            // It is being written to.
            Err(StoreError::Unsteady { .. } | StoreError::Vanished { .. }) => return Some(false),
            Err(error) => self.say(format!("{} stays as it was shared: {error}", self.name)),
        }
        Some(true)
    }

    /// Tells something, once.
    fn say(&mut self, message: String) {
        if self.told.as_ref() != Some(&message) {
            tell(&self.happened, Event::Notice { message: message.clone() });
            self.told = Some(message);
        }
    }
}

async fn watch(path: &Path) -> TreeWatcher {
    let to_watch = path.to_owned();
    let started = tokio::task::spawn_blocking(move || TreeWatcher::start(&to_watch)).await;
    // It fails only if it panics, or the runtime ends.
    started.unwrap_or_else(|_| TreeWatcher::start(path))
}

fn tell(happened: &Happened, event: Event) {
    // Nobody may be there to show it.
    let _ = happened.send(event);
}
