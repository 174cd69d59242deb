//! Where the commands work: the data folder, what there is to share, and a node on loopback to fetch from.
//!
//! ```text
//! disk/in-place/NAME   shared from where it lies, never changed     trees/N      folders that the other node shares
//! disk/copied/NAME     shared as copies, another version each time  disk/out/N   where they are fetched to
//! ```
//! What it is not: which command comes next; see [`super::change`].

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use keyferry::{
    ContentHash, NodeSecret, ShareName,
    node::api::{Event, Shared},
};
use rand::{Rng, RngExt, rngs::StdRng};

use super::{
    change::{CONTACTS, Change, Choice},
    state::FolderState,
};
use crate::{
    content,
    lab::{Lab, Process},
};

/// What a power cut may take: the data folder, and what is shared and fetched there.
pub(crate) const DISK: &str = "disk";
/// The data folder whose commands are disturbed.
const VICTIM: &str = "disk/victim";
/// How many files are shared in place, and how many folders.
const IN_PLACE: (usize, usize) = (3, 2);
/// How many folders the other node shares.
const TREES: usize = 3;
/// How many files a folder has.
const FILES_OF_FOLDER: u64 = 12;
const LEN_OF_FILE_IN_FOLDER: u64 = 70_000;
/// The sizes of single files are below this.
const MAX_LEN: u64 = 600_000;

/// Something that lies there to be shared or fetched.
struct Place {
    path: PathBuf,
    name: ShareName,
    hash: ContentHash,
    /// What the other node says to type; nothing if it is to be shared.
    address: String,
}

/// What was found in the data folder.
pub(crate) struct Looked {
    pub(crate) state: FolderState,
    pub(crate) notices: Vec<String>,
}

/// Something in the store that is not what it should be.
#[derive(Debug)]
pub(crate) struct Damaged {
    pub(crate) hash: ContentHash,
    pub(crate) path: PathBuf,
    #[expect(dead_code, reason = "it is shown")]
    problem: String,
}

/// All that there is.
pub(crate) struct Ground {
    lab: Lab,
    places: Vec<Place>,
    trees: Vec<Place>,
    contacts: Vec<String>,
    _sharer: Process,
}

impl Ground {
    /// Makes all of it in a lab whose disk is there and empty.
    pub(crate) fn new(lab: Lab, seed: u64) -> Result<Self> {
        lab.folder(on_disk("copied"))?;
        let mut paths = Vec::new();
        for number in 0..IN_PLACE.0 {
            let path = lab.path(on_disk(format!("in-place/file-{number}")));
            fs::create_dir_all(lab.path(on_disk("in-place")))?;
            // One of them is empty, and one has a single chunk group.
            content::random_file(&path, seed ^ number as u64, [0, 60_000, MAX_LEN][number])?;
            paths.push(path);
        }
        let folders = (0..IN_PLACE.1).map(|number| on_disk(format!("in-place/folder-{number}")));
        let trees = (0..TREES).map(|number| Path::new("trees").join(format!("tree-{number}")));
        for (number, folder) in folders.chain(trees).enumerate() {
            let path = lab.path(folder);
            content::small_files(
                &path,
                seed.wrapping_add(1000 * number as u64),
                FILES_OF_FOLDER,
                LEN_OF_FILE_IN_FOLDER,
            )?;
            paths.push(path);
        }
        // The other node shares all of it, so that the hashes of folders are known.
        let (sharer, shared) = share_all(&lab, &paths)?;
        let place = |(path, shared): (PathBuf, Shared)| Place {
            path,
            name: shared.name,
            hash: shared.hash,
            address: shared.address_with_hints.to_string(),
        };
        let mut places: Vec<_> = paths.into_iter().zip(shared).map(place).collect();
        let trees = places.split_off(IN_PLACE.0 + IN_PLACE.1);
        let contacts = (0..CONTACTS).map(|number| NodeSecret::from_bytes(&[number as u8 + 1; 32]).public().to_string());
        Ok(Self { places, trees, contacts: contacts.collect(), lab, _sharer: sharer })
    }

    /// What commands can work on.
    pub(crate) fn choice(&self) -> Choice {
        Choice { places: self.places.len(), trees: self.trees.iter().map(|tree| tree.hash).collect() }
    }

    /// Makes ready what a command works on, and says what the folder holds after it.
    pub(crate) fn prepare(&self, change: &Change, before: &FolderState, random: &mut StdRng) -> Result<FolderState> {
        let mut after = before.clone();
        match change {
            Change::Share(number) => after.share(&self.places[*number].name, self.places[*number].hash),
            Change::ShareCopy(number) => {
                let path = self.copied(*number);
                content::random_file(&path, random.next_u64(), random.random_range(0..MAX_LEN))?;
                File::open(&path)?.sync_all()?;
                File::open(self.lab.path(on_disk("copied")))?.sync_all()?;
                after.share(&copied_name(*number)?, ContentHash::from_bytes(*content::hash_file(&path)?.as_bytes()));
            }
            Change::Unshare(name) => after.unshare(name),
            Change::Get(number) => {
                after.kept.insert(self.trees[*number].hash);
            }
            Change::StoreRemove(hash) => after.remove(hash),
            Change::StoreGc => {}
            Change::ContactsAdd(number, name) => {
                after.contacts.insert(self.contacts[*number].clone(), name.clone());
            }
            Change::ContactsRemove(key) => {
                after.contacts.remove(key);
            }
        }
        Ok(after)
    }

    pub(crate) fn start(&self, change: &Change) -> Result<Process> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let words: Vec<String> = match change {
            Change::Share(number) => vec!["share".into(), text(&self.places[*number].path)],
            Change::ShareCopy(number) => vec!["share".into(), "--copy".into(), text(&self.copied(*number))],
            Change::Unshare(name) => vec!["unshare".into(), name.to_string()],
            Change::Get(number) => {
                // With the slash it is the same place each time, whatever is there.
                let into = format!("{}/", text(&self.lab.path(on_disk("out"))));
                vec!["get".into(), self.trees[*number].address.clone(), "-o".into(), into]
            }
            Change::StoreRemove(hash) => vec!["store".into(), "rm".into(), hash.to_string()],
            Change::StoreGc => vec!["store".into(), "gc".into()],
            Change::ContactsAdd(number, name) => {
                vec!["contacts".into(), "add".into(), self.contacts[*number].clone(), name.clone()]
            }
            Change::ContactsRemove(key) => vec!["contacts".into(), "rm".into(), key.clone()],
        };
        self.lab.start(VICTIM, words)
    }

    /// What the data folder holds now. It has to open, and to be sound.
    pub(crate) fn look(&self) -> Result<Looked> {
        let mut told = Vec::new();
        for words in [&["id"][..], &["store", "ls"], &["contacts", "ls"]] {
            told.extend(self.lab.start(VICTIM, words)?.finish()?.done().with_context(|| words.join(" "))?);
        }
        let damaged = self.damaged(&mut told)?;
        ensure!(damaged.is_empty(), "the store is not sound: {damaged:#?}");
        let lab = self.lab.path("").display().to_string();
        let notice = |event: &Event| match event {
            Event::Notice { message } => Some(message.replace(&lab, "")),
            _ => None,
        };
        Ok(Looked { notices: told.iter().filter_map(notice).collect(), state: FolderState::told_by(&told) })
    }

    /// What `store verify` finds damaged.
    pub(crate) fn damaged(&self, told: &mut Vec<Event>) -> Result<Vec<Damaged>> {
        let outcome = self.lab.start(VICTIM, ["store", "verify"])?.finish()?;
        told.extend_from_slice(outcome.events());
        let Some(Event::Verified { .. }) = told.last() else { bail!("it is not verified: {:?}", told.last()) };
        let damaged = outcome.events().iter().filter_map(|event| match event {
            Event::Damaged { hash, path, problem } => {
                Some(Damaged { hash: *hash, path: path.clone(), problem: problem.clone() })
            }
            _ => None,
        });
        Ok(damaged.collect())
    }

    /// Compares what was fetched with its source; and clears away what the folder does not hold any more, so that it can be fetched anew.
    pub(crate) fn settle(&self, change: &Change, found: &FolderState) -> Result<()> {
        for (number, tree) in self.trees.iter().enumerate() {
            match change {
                Change::Get(fetched) if *fetched == number && found.has(&tree.hash) => {
                    content::same(&tree.path, &self.out(number))?;
                }
                Change::StoreRemove(removed) if *removed == tree.hash && !found.has(&tree.hash) => {
                    fs::remove_dir_all(self.out(number))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether all of a fetched folder is there, as it was sent.
    pub(crate) fn is_whole(&self, number: usize) -> bool {
        content::same(&self.trees[number].path, &self.out(number)).is_ok()
    }

    /// Whether something damaged is what was fetched of a folder, or the list of its files.
    pub(crate) fn is_of_fetched(&self, damaged: &Damaged, number: usize) -> bool {
        damaged.hash == self.trees[number].hash || damaged.path.starts_with(self.out(number))
    }

    fn out(&self, number: usize) -> PathBuf {
        self.lab.path(on_disk(format!("out/tree-{number}")))
    }

    /// Removes the data folder and what was fetched.
    pub(crate) fn begin_anew(&self) -> Result<()> {
        self.lab.forget(VICTIM)?;
        self.lab.folder(on_disk("out")).map(drop)
    }

    /// Fetches all that is shared from a node on the data folder, as another node that has nothing. Says how much that was.
    pub(crate) fn fetch_all(&self, state: &FolderState) -> Result<u64> {
        self.lab.forget("getter")?;
        let (node, status) = self.lab.node(VICTIM)?;
        ensure!(
            state.node.as_ref().is_none_or(|node| *node == status.node),
            "the node is {} and not {:?}",
            status.node,
            state.node
        );
        let hint = status.hints.first().context("a node that listens has a hint")?;
        for (name, hash) in &state.shares {
            let (address, into) = (format!("keyferry:{}/{name}?via={hint}", status.node), self.lab.folder("compared")?);
            let fetched = match self.lab.get("getter", address, &into) {
                Ok((fetched, _, _)) => fetched,
                Err(error) => bail!("{name}: {error:#}; the node said: {:#?}", node.kill()?.events()),
            };
            ensure!(fetched.hash == *hash, "{name} is {} and not {hash}", fetched.hash);
            match self.places.iter().find(|place| place.name == *name) {
                Some(place) => drop(content::same(&place.path, &fetched.path)?),
                None => ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(*hash), "{name} is damaged"),
            }
        }
        node.stop()?;
        Ok(state.shares.len() as u64)
    }

    fn copied(&self, number: usize) -> PathBuf {
        self.lab.path(on_disk(format!("copied/copied-{number}")))
    }
}

fn on_disk(relative: impl AsRef<Path>) -> PathBuf {
    Path::new(DISK).join(relative)
}

/// Whether an event tells that a command is done.
pub(crate) fn is_told(event: &Event) -> bool {
    event.is_result() && !matches!(event, Event::Failed(_))
}

fn copied_name(number: usize) -> Result<ShareName> {
    Ok(format!("copied-{number}").parse()?)
}

/// Shares some paths from another node, which stays up.
fn share_all(lab: &Lab, paths: &[PathBuf]) -> Result<(Process, Vec<Shared>)> {
    let words = ["share".as_ref()].into_iter().chain(paths.iter().map(|path| path.as_os_str()));
    let mut sharer = lab.start("sharer", words)?;
    let shared = paths.iter().map(|_| sharer.wait_shared()).collect::<Result<_>>()?;
    Ok((sharer, shared))
}
