//! The disk as a file system that programs use, through FUSE.
//!
//! The kernel keeps no name and no length (their time to live is nothing), and writes nothing later than it is asked to.
//!
//! What it is not: what is lost; see [`super::disk`].

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{
    disk::{Contents, Disk},
    tree::{Body, Node, Operation, Place},
};

const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const BLOCK: u32 = 4096;
/// How many blocks are said to be there, and free: no test fills them.
const BLOCKS: u64 = 1 << 20;
const MAX_NAME: u32 = 255;

/// A disk that is mounted until it is dropped.
#[derive(Debug)]
pub(super) struct Mounted {
    at: PathBuf,
    _session: BackgroundSession,
}

impl Mounted {
    pub(super) fn new(disk: Arc<Disk>, at: &Path) -> Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("keyferry-sim".to_owned())];
        let files = Files { disk, listings: Mutex::default(), next_handle: AtomicU64::new(1) };
        let session = fuser::spawn_mount(files, at, &config).context("cannot mount a file system of FUSE")?;
        Ok(Self { at: at.to_owned(), _session: session })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still has a file of it open keeps it, out of sight.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

struct Files {
    disk: Arc<Disk>,
    /// What folders held when somebody began to read them.
    listings: Mutex<HashMap<u64, Vec<Listed>>>,
    next_handle: AtomicU64,
}

/// An entry of a folder.
struct Listed {
    name: OsString,
    number: u64,
    kind: FileType,
}

impl Files {
    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        let contents = self.disk.contents();
        contents.seen.get(number).map(|node| attributes(number, node)).ok_or(Errno::ENOENT)
    }

    fn create(&self, request: &Request, place: Place, mode: u16, body: Body) -> Result<FileAttr, Errno> {
        self.disk.change(|contents| {
            if contents.seen.at(&place).is_some() {
                return Err(Errno::EEXIST);
            }
            contents.seen.entries(place.folder).ok_or(Errno::ENOENT)?;
            let (now, links) = (SystemTime::now(), if matches!(body, Body::Folder(_)) { 2 } else { 0 });
            let node = Node { body, mode, uid: request.uid(), gid: request.gid(), links, modified: now, changed: now };
            let number = contents.new_number();
            contents.carry_out(Operation::Create { place, number, node });
            contents.seen.get(number).map(|node| attributes(number, node)).ok_or(Errno::EIO)
        })
    }

    fn remove(&self, place: Place, folders: bool) -> Result<(), Errno> {
        self.disk.change(|contents| {
            let number = contents.seen.at(&place).ok_or(Errno::ENOENT)?;
            match contents.seen.entries(number) {
                Some(_) if !folders => return Err(Errno::EISDIR),
                Some(entries) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
                None if folders => return Err(Errno::ENOTDIR),
                _ => {}
            }
            contents.carry_out(Operation::Remove { place });
            Ok(())
        })
    }

    fn rename(&self, from: Place, to: Place, flags: RenameFlags) -> Result<(), Errno> {
        self.disk.change(|contents| {
            let number = contents.seen.at(&from).ok_or(Errno::ENOENT)?;
            let there = contents.seen.at(&to);
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                let other = there.ok_or(Errno::ENOENT)?;
                contents.carry_out(Operation::Exchange { one: (from, number), other: (to, other) });
                return Ok(());
            }
            if let Some(there) = there {
                if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                    return Err(Errno::EEXIST);
                }
                match (contents.seen.entries(number), contents.seen.entries(there)) {
                    (None, Some(_)) => return Err(Errno::EISDIR),
                    (Some(_), None) => return Err(Errno::ENOTDIR),
                    (_, Some(entries)) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                // Two names of one file stay as they are.
                if there == number {
                    return Ok(());
                }
            }
            contents.carry_out(Operation::Rename { number, from, to });
            Ok(())
        })
    }
}

fn place(folder: INodeNo, name: &OsStr) -> Place {
    Place { folder: folder.0, name: name.to_owned() }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let size = node.body.len();
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.changed,
        crtime: node.changed,
        kind: node.body.kind(),
        perm: node.mode,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn bytes_of(contents: &Contents, number: u64) -> Result<&[u8], Errno> {
    match contents.seen.get(number).map(|node| &node.body) {
        Some(Body::File(bytes)) => Ok(bytes),
        Some(_) => Err(Errno::EINVAL),
        None => Err(Errno::ENOENT),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = self.disk.contents().seen.at(&place(parent, name)).ok_or(Errno::ENOENT);
        answer_entry(reply, number.and_then(|number| self.attributes(number)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let number = ino.0;
        let result = self.disk.change(|contents| {
            contents.seen.get(number).ok_or(Errno::ENOENT)?;
            if let Some(size) = size {
                contents.carry_out(Operation::Resize { number, len: size as usize });
            }
            let (mode, modified) = (mode.map(|mode| permissions(mode, 0)), mtime.map(moment));
            if mode.is_some() || uid.is_some() || gid.is_some() || modified.is_some() {
                contents.carry_out(Operation::Attributes { number, mode, uid, gid, modified });
            }
            Ok(())
        });
        match result.and_then(|()| self.attributes(number)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.disk.contents().seen.get(ino.0).map(|node| &node.body) {
            Some(Body::Link(target)) => reply.data(target.as_bytes()),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let body = match mode & libc_kind::MASK {
            libc_kind::SOCKET => Body::Special(FileType::Socket),
            libc_kind::PIPE => Body::Special(FileType::NamedPipe),
            _ => Body::File(Vec::new()),
        };
        answer_entry(reply, self.create(request, place(parent, name), permissions(mode, umask), body));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let body = Body::Folder(BTreeMap::new());
        answer_entry(reply, self.create(request, place(parent, name), permissions(mode, umask), body));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(place(parent, name), false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(place(parent, name), true));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let body = Body::Link(target.as_os_str().to_owned());
        answer_entry(reply, self.create(request, place(parent, name), 0o777, body));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.rename(place(parent, name), place(newparent, newname), flags));
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (place, number) = (place(newparent, newname), ino.0);
        let linked = self.disk.change(|contents| {
            if contents.seen.at(&place).is_some() {
                return Err(Errno::EEXIST);
            }
            contents.carry_out(Operation::Link { place, number });
            Ok(())
        });
        answer_entry(reply, linked.and_then(|()| self.attributes(number)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let body = Body::File(Vec::new());
        match self.create(request, place(parent, name), permissions(mode, umask), body) {
            Ok(attributes) => reply.created(&TTL, &attributes, GENERATION, FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match bytes_of(&self.disk.contents(), ino.0) {
            Ok(bytes) => {
                let from = bytes.len().min(offset as usize);
                reply.data(&bytes[from..bytes.len().min(from + size as usize)]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let number = ino.0;
        let written = self.disk.change(|contents| {
            bytes_of(contents, number)?;
            contents.carry_out(Operation::Write { number, offset: offset as usize, bytes: data.to_vec() });
            Ok(())
        });
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(
            reply,
            self.disk.change(|contents| {
                contents.sync(|operation| operation.is_of_file(ino.0));
                Ok(())
            }),
        );
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.next_handle.fetch_add(1, Ordering::Relaxed)), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 {
            let contents = self.disk.contents();
            let Some(entries) = contents.seen.entries(ino.0) else { return reply.error(Errno::ENOTDIR) };
            let listed = entries.iter().filter_map(|(name, number)| {
                let kind = contents.seen.get(*number)?.body.kind();
                Some(Listed { name: name.clone(), number: *number, kind })
            });
            let own = [".", ".."].map(|name| Listed { name: name.into(), number: ino.0, kind: FileType::Directory });
            listings.insert(fh.0, own.into_iter().chain(listed).collect());
        }
        for (place, Listed { name, number, kind }) in
            listings.get(&fh.0).into_iter().flatten().enumerate().skip(offset as usize)
        {
            if reply.add(INodeNo(*number), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(
            reply,
            self.disk.change(|contents| {
                contents.sync(|operation| operation.is_of_folder(ino.0));
                Ok(())
            }),
        );
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, MAX_NAME, BLOCK);
    }
}

/// The kinds in the mode of a node, as every Linux has them.
mod libc_kind {
    pub(super) const MASK: u32 = 0o170_000;
    pub(super) const SOCKET: u32 = 0o140_000;
    pub(super) const PIPE: u32 = 0o010_000;
}
