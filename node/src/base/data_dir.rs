//! The data folder of a node: where it is, who may use it at a time, and the identity key in it.
//!
//! ```text
//! identity.key   the node's secret (see `key_file`), mode 0600
//! contact-days   contacts whose clock shows another day (see `contact_days`)
//! lock           held for as long as a process uses the folder
//! sequence       the sequence number of the node's last offer (see `node::announcer`)
//! contacts       nodes that the owner knows (see `contacts`)
//! roots.json     what is shared; the rest of the content store is described in `store`
//! ```
//!
//! What it is not: the content in it; that is [`crate::content::store`].

mod admission;
mod contact_days;
mod contacts;
mod key_file;
mod known_contacts;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use keyferry_proto::identity::NodeSecret;

pub use self::{
    admission::{Admission, AdmissionPolicy},
    contact_days::{ContactDays, DayShift},
    contacts::{
        Contact, ContactList, ContactName, ContactNameError, ContactsError, ContactsFile, LineProblem,
        MAX_CONTACT_NAME_LEN, MAX_CONTACTS,
    },
    key_file::{KeyFileError, MAX_PASSPHRASE_LEN},
    known_contacts::KnownContacts,
};
use crate::base::{atomic_file, durable::sync_folder};

/// The environment variable that names the data folder.
pub const HOME_VARIABLE: &str = "KEYFERRY_HOME";

const IDENTITY_FILE: &str = "identity.key";
const LOCK_FILE: &str = "lock";
const FOLDER_MODE: u32 = 0o700;
const SECRET_MODE: u32 = 0o600;

/// An opened data folder. No other process can open it until this value is dropped.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    /// Held, not read: the operating system releases the lock when the process ends, however it ends.
    _lock: File,
}

/// Why a data folder or the key in it cannot be used. All of it is about this machine.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process uses the folder.
    #[error("another keyferry is running on {}; stop it, or choose another data folder with ${HOME_VARIABLE}", path.display())]
    Busy {
        /// The data folder.
        path: PathBuf,
    },
    /// Neither the variable nor the user's home folder is known.
    #[error("no data folder: neither ${HOME_VARIABLE} nor the home folder of this user is known; set ${HOME_VARIABLE}")]
    Unknown,
    /// The place of the data folder is taken by something else.
    #[error("the data folder {} is not a folder; move that file away, or set ${HOME_VARIABLE}", path.display())]
    NotAFolder {
        /// What is in the way.
        path: PathBuf,
    },
    /// The folder is another user's, who could replace everything in it.
    #[error(
        "the data folder {} belongs to another user ({owner}), who could replace the key in it; run keyferry as that user, or \
         choose another folder with ${HOME_VARIABLE}", path.display()
    )]
    OfAnotherUser {
        /// The data folder.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// Others can read the key file.
    #[error(
        "others can read the key file {} (mode {mode:04o}); whoever read it can act as this node. \
         Run: chmod 600 '{}'", path.display(), path.display()
    )]
    ExposedKey {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system keeps no permissions, so nothing in the folder can be closed to others.
    #[error(
        "others can open {}, and its file system takes no other permissions (a FAT stick, a Windows drive in WSL or a network drive is \
         like that), so the key in it would not be secret; choose a folder elsewhere with --home, or mount that one with the options \
         uid=$(id -u),umask=077", path.display()
    )]
    NoPermissions {
        /// The data folder.
        path: PathBuf,
    },
    /// The key file is encrypted.
    #[error("the key file {} is encrypted; its passphrase is needed", path.display())]
    PassphraseNeeded {
        /// The key file.
        path: PathBuf,
    },
    /// There is an identity already, and it is never overwritten.
    #[error("there is an identity already; to start anew, move {} to a safe place first", path.display())]
    IdentityExists {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is not what it should be, or the passphrase is wrong.
    #[error("the key file {}: {source}", path.display())]
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "create".
        action: &'static str,
        /// The path that it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Home {
    /// Creates the data folder, open to this user alone, when it is absent, and shuts others out when it is open to them; for
    /// those files in it that need no lock on the whole.
    ///
    /// # Errors
    /// If something else is there, or a folder of another user, or the system refuses.
    pub fn prepare(path: &Path) -> Result<(), HomeError> {
        if path.exists() && !path.is_dir() {
            return Err(HomeError::NotAFolder { path: path.to_owned() });
        }
        create_private_dir(path).map_err(failed("create", path))?;
        make_private(path)
    }

    /// Opens the data folder and locks it; creates it, open to this user alone, when it is absent.
    ///
    /// # Errors
    /// [`HomeError::Busy`] while another process has it open.
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        Self::prepare(path)?;
        let root = path.canonicalize().map_err(failed("open", path))?;
        let lock_path = root.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HomeError::Busy { path: root }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error)),
        }
        atomic_file::remove_leftovers(&root);
        Ok(Self { root, _lock: lock })
    }

    /// The data folder to use when the user names none: `$KEYFERRY_HOME`, else the one for application data (XDG).
    pub fn default_path() -> Result<PathBuf, HomeError> {
        use etcetera::BaseStrategy;

        if let Some(path) = std::env::var_os(HOME_VARIABLE).filter(|path| !path.is_empty()) {
            return std::path::absolute(&path).map_err(failed("find", Path::new(&path)));
        }
        let strategy = etcetera::choose_base_strategy().map_err(|_| HomeError::Unknown)?;
        Ok(strategy.data_dir().join("keyferry"))
    }

    /// The folder itself, as an absolute path without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the key file is or would be.
    pub fn identity_path(&self) -> PathBuf {
        self.root.join(IDENTITY_FILE)
    }

    /// Reads the node's secret; makes one, unencrypted, when there is none yet.
    ///
    /// # Errors
    /// [`HomeError::PassphraseNeeded`] if it is encrypted: ask for the passphrase and call [`Home::unlock`].
    pub fn identity(&self) -> Result<NodeSecret, HomeError> {
        match self.read_key_file()? {
            None => self.new_identity(None),
            Some(bytes) => key_file::decode(&bytes).map_err(|source| self.key_file_error(source)),
        }
    }

    /// Reads the node's secret from an encrypted key file. Takes about a tenth of a second and 46 MiB, on purpose.
    pub fn unlock(&self, passphrase: &str) -> Result<NodeSecret, HomeError> {
        match self.read_key_file()? {
            None => Err(failed("open", &self.identity_path())(io::ErrorKind::NotFound.into())),
            Some(bytes) => key_file::decrypt(&bytes, passphrase).map_err(|source| self.key_file_error(source)),
        }
    }

    /// Makes a new identity and keeps it, encrypted if a passphrase is given.
    ///
    /// # Errors
    /// [`HomeError::IdentityExists`] if there is one: an identity cannot be made again, so it is never overwritten.
    pub fn new_identity(&self, passphrase: Option<&str>) -> Result<NodeSecret, HomeError> {
        let path = self.identity_path();
        if path.symlink_metadata().is_ok() {
            return Err(HomeError::IdentityExists { path });
        }
        let secret = NodeSecret::from_bytes(&zeroize::Zeroizing::new(rand::random::<[u8; 32]>()));
        let bytes = match passphrase {
            None => key_file::encode(&secret),
            Some(passphrase) => key_file::encrypt(&secret, passphrase, rand::random(), rand::random())
                .map_err(|source| self.key_file_error(source))?,
        };
        atomic_file::write_atomically(&path, &bytes, SECRET_MODE).map_err(failed("write", &path))?;
        Ok(secret)
    }

    fn read_key_file(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, HomeError> {
        use std::io::Read;

        let path = self.identity_path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        refuse_exposed(&file, &path)?;
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(key_file::MAX_KEY_FILE_LEN as usize + 1));
        file.take(key_file::MAX_KEY_FILE_LEN + 1).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        Ok(Some(bytes))
    }

    fn key_file_error(&self, source: KeyFileError) -> HomeError {
        let path = self.identity_path();
        match source {
            KeyFileError::Encrypted => HomeError::PassphraseNeeded { path },
            source => HomeError::KeyFile { path, source },
        }
    }
}

#[cfg(unix)]
fn refuse_exposed(file: &File, path: &Path) -> Result<(), HomeError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata().map_err(failed("read", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HomeError::ExposedKey { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Elsewhere the folder's access list, inherited from the user's profile, is what protects the key.
#[cfg(not(unix))]
fn refuse_exposed(_file: &File, _path: &Path) -> Result<(), HomeError> {
    Ok(())
}

/// Makes the folder, with those above it, and waits until the disk has them: the key that will be in it cannot be made again.
fn create_private_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, FOLDER_MODE);
    builder.create(path)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(|above| match above.as_os_str().is_empty() {
        true => sync_folder(Path::new(".")),
        false => sync_folder(above),
    })
}

/// Refuses a folder of another user, who could replace what is in it; shuts others out of one that is open to them.
#[cfg(unix)]
fn make_private(path: &Path) -> Result<(), HomeError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let metadata = std::fs::metadata(path).map_err(failed("read", path))?;
    let owner = metadata.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(HomeError::OfAnotherUser { path: path.to_owned(), owner });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(mode & !0o077);
        let changed = std::fs::set_permissions(path, private);
        let now = std::fs::metadata(path).map_err(failed("read", path))?.mode();
        check_private(path, changed, now)?;
        tracing::warn!(path = %path.display(), was = %format_args!("{mode:04o}"), "others could open the data folder; now they cannot");
    }
    Ok(())
}

/// Finds that a folder is closed to others now. File systems without permissions refuse to change them, or say that they did.
#[cfg(unix)]
fn check_private(path: &Path, changed: io::Result<()>, mode: u32) -> Result<(), HomeError> {
    match changed {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(failed("protect", path)(error)),
        _ if mode & 0o077 != 0 => Err(HomeError::NoPermissions { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Elsewhere the folder's access list, inherited from the user's profile, is what protects it.
#[cfg(not(unix))]
fn make_private(_path: &Path) -> Result<(), HomeError> {
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
