//! The watcher of one file or folder: the system's, or where that does not tell, or has no more to give, a look every now and then.
//!
//! What it is not: a list of what has changed, or a wait for the end of changes (`settling`).

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

/// How often to look where the system does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// File systems whose changes may be made elsewhere, by `f_type` of statfs(2): the system hears of its own only.
const SILENT: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x786f_4256, "a shared folder of VirtualBox"),
];

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMeans {
    /// The system tells.
    Told,
    /// By looking every now and then.
    Looking {
        /// Why the system does not tell.
        why: String,
    },
}

/// Notices that a file, or something in a folder, has changed.
pub struct TreeWatcher {
    path: PathBuf,
    /// Device and inode of what was there when it began.
    was: Option<(u64, u64)>,
    told: mpsc::Receiver<()>,
    silent: Arc<OnceLock<String>>,
    _system: Option<RecommendedWatcher>,
}

impl TreeWatcher {
    /// Watches what is, or will be, at an absolute path. Of a large folder that takes a while; it blocks.
    pub fn start(path: &Path) -> Self {
        let (tell, told) = mpsc::channel(1);
        let silent = Arc::new(OnceLock::new());
        let system = match silent_file_system(path) {
            Some(name) => Err(format!("{name} does not tell of changes")),
            None => watch(path, tell, &silent).map_err(|error| in_words(&error)),
        };
        let system = system.map_err(|why| drop(silent.set(why))).ok();
        Self { path: path.to_owned(), was: identity(path), told, silent, _system: system }
    }

    /// How changes are noticed, as of now.
    pub fn means(&self) -> WatchMeans {
        self.silent.get().map_or(WatchMeans::Told, |why| WatchMeans::Looking { why: why.clone() })
    }

    /// Waits until something has changed, or may have. Cancel-safe.
    pub async fn changed(&mut self) {
        // The channel ends only if the watcher could not be set up.
        if self.means() != WatchMeans::Told || self.told.recv().await.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether there is something else at the path now, of which the system tells nothing.
    pub fn is_outdated(&self) -> bool {
        identity(&self.path) != self.was
    }
}

/// Has the system tell of a folder with all that is in it, and of what takes its place; or of a file.
fn watch(path: &Path, tell: mpsc::Sender<()>, silent: &Arc<OnceLock<String>>) -> notify::Result<RecommendedWatcher> {
    let (of, silent) = (path.to_owned(), Arc::clone(silent));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let is_news = match event {
            Ok(event) => is_change(&event, &of),
            Err(error) if is_exhausted(&error) => {
                let _ = silent.set(in_words(&error));
                true
            }
            // Something was missed.
            Err(_) => true,
        };
        if is_news {
            // A full channel says the same.
            let _ = tell.try_send(());
        }
    })?;
    if let Some(parent) = path.parent() {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    if path.is_dir() {
        watcher.watch(path, RecursiveMode::Recursive)?;
    }
    Ok(watcher)
}

fn is_change(event: &Event, of: &Path) -> bool {
    let is_change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    event.need_rescan() || (is_change && event.paths.iter().any(|path| path.starts_with(of)))
}

/// Whether there is no more to be had of the system.
fn is_exhausted(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => {
            matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        }
        _ => false,
    }
}

fn in_words(error: &notify::Error) -> String {
    match is_exhausted(error) {
        true => "the system watches no more folders (fs.inotify.max_user_watches or max_user_instances)".to_owned(),
        false => error.to_string(),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The name of the file system, if it does not tell of all its changes.
#[cfg(target_os = "linux")]
fn silent_file_system(path: &Path) -> Option<&'static str> {
    let disk = rustix::fs::statfs(path).ok()?;
    // Of 32 bits, which some machines extend by their sign.
    let kind = u64::from(disk.f_type as u32);
    SILENT.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

/// The name of the file system, if it does not tell of all its changes; nothing says so here.
#[cfg(not(target_os = "linux"))]
fn silent_file_system(_path: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    async fn is_told(watcher: &mut TreeWatcher) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watcher.told.recv()).await.is_ok_and(|told| told.is_some())
    }

    /// Takes what is still on its way.
    async fn drain(watcher: &mut TreeWatcher) {
        while tokio::time::timeout(Duration::from_millis(100), watcher.told.recv()).await.is_ok() {}
    }

    #[tokio::test]
    async fn every_kind_of_change_is_told_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/f"), "1").unwrap();
        let mut watcher = TreeWatcher::start(&root);
        assert_eq!(watcher.means(), WatchMeans::Told);
        type Act<'a> = &'a dyn Fn() -> io::Result<()>;
        let acts: [(&str, Act<'_>); 7] = [
            ("written", &|| fs::write(root.join("sub/f"), "2")),
            ("made", &|| fs::write(root.join("new"), "")),
            ("a folder made", &|| fs::create_dir_all(root.join("deep/er"))),
            ("in a folder that is new", &|| fs::write(root.join("deep/er/f"), "")),
            ("renamed", &|| fs::rename(root.join("new"), root.join("newer"))),
            ("mode changed", &|| {
                fs::set_permissions(root.join("newer"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            }),
            ("removed", &|| fs::remove_file(root.join("newer"))),
        ];
        for (what, act) in acts {
            drain(&mut watcher).await;
            act().unwrap();
            assert!(is_told(&mut watcher).await, "{what}");
        }
        drain(&mut watcher).await;
        fs::read(root.join("sub/f")).unwrap();
        fs::read_dir(&root).unwrap().for_each(drop);
        fs::write(dir.path().join("beside"), "").unwrap();
        let told = tokio::time::timeout(Duration::from_millis(300), watcher.told.recv()).await;
        assert!(told.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn a_file_that_is_saved_by_rename_and_a_folder_that_changes_places_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let file = dir.join("f");
        fs::write(&file, "1").unwrap();
        let mut watcher = TreeWatcher::start(&file);
        for _ in 0..2 {
            drain(&mut watcher).await;
            fs::write(dir.join("new"), "2").unwrap();
            fs::rename(dir.join("new"), &file).unwrap();
            assert!(is_told(&mut watcher).await);
        }
        let (folder, other) = (dir.join("d"), dir.join("other"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&other).unwrap();
        let mut watcher = TreeWatcher::start(&folder);
        assert!(!watcher.is_outdated());
        fs::rename(&folder, dir.join("away")).unwrap();
        fs::rename(&other, &folder).unwrap();
        assert!(is_told(&mut watcher).await);
        assert!(watcher.is_outdated());
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_system_does_not_tell_it_is_looked_now_and_then() {
        let mut watcher = TreeWatcher::start(Path::new("/no such folder/in it"));
        assert!(matches!(watcher.means(), WatchMeans::Looking { .. }), "{:?}", watcher.means());
        let began = tokio::time::Instant::now();
        watcher.changed().await;
        assert_eq!(began.elapsed(), LOOK_EVERY);
    }

    #[test]
    fn a_system_that_has_no_more_watches_says_so() {
        for error in [
            notify::Error::new(ErrorKind::MaxFilesWatch),
            notify::Error::io(io::Error::from_raw_os_error(libc::ENOSPC)),
            notify::Error::io(io::Error::from_raw_os_error(libc::EMFILE)),
        ] {
            assert!(is_exhausted(&error), "{error:?}");
            assert!(in_words(&error).contains("max_user_watches"));
        }
        assert!(!is_exhausted(&notify::Error::io(io::Error::from_raw_os_error(libc::EACCES))));
    }
}
