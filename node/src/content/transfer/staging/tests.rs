use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt as _, PermissionsExt, symlink},
};

use keyferry_proto::collection::{CollectionEntry, EntryKind, FileEntry, FolderAttributes, LinkTarget, Manifest};
use tempfile::TempDir;

use super::{
    merging::{Merged, Merging},
    present::{Looking, PresentTree},
    *,
};
use crate::content::store::Store;

fn target(out: &TempDir, overwrite: bool) -> FetchTarget {
    FetchTarget {
        out_dir: out.path().to_owned(),
        name: "thing".to_owned(),
        source: None,
        umask: None,
        overwrite,
        mirror: false,
        sync: false,
    }
}

/// Opens a staging area of a target in which nothing was fetched before.
fn open(out: &TempDir, overwrite: bool, format: ContentFormat) -> Result<Staging, StagingError> {
    Staging::open(target(out, overwrite), &root(), format, &NOTHING_CARRIED, |_| false)
}

/// Merges what is staged into the folder at the target, in which nothing was fetched before.
fn merge(staging: &Staging, tree: &FittedTree) -> Merged {
    let home = TempDir::new().unwrap();
    let (store, _) = Store::open(home.path()).unwrap();
    let looking = Looking {
        store: &store,
        path: &staging.final_path(),
        wanted: root(),
        overwrite: staging.target.overwrite,
        go_on: &|| true,
    };
    let present = PresentTree::look(tree, &staging.open_target().unwrap(), &looking).unwrap();
    let merging = Merging { present: &present, tree, mirror: false, is_as_found: &|_, _| true, go_on: &|| true };
    staging.merge(&merging).unwrap().unwrap()
}

fn root() -> ContentHash {
    ContentHash::of(b"root")
}

const FOLDER: FolderAttributes = FolderAttributes { modified: FileTime(1_000_000_000_000_000_007), private: false };
const FILE: FileAttributes = FileAttributes { modified: FileTime(-5), executable: false, private: false };

fn entry<'a>(depth: u8, name: &'a str, kind: EntryKind<'a>) -> CollectionEntry<'a> {
    CollectionEntry { depth, name: EntryName::new(name.as_bytes()).unwrap(), kind }
}

fn file(attributes: FileAttributes) -> EntryKind<'static> {
    EntryKind::File(FileEntry { size: 1, hash: ContentHash::of(b"x"), attributes })
}

fn tree_of(root: FolderAttributes, entries: Vec<CollectionEntry<'_>>) -> FittedTree {
    FittedTree::new(Manifest::from_entries(root, entries).unwrap(), TargetFileSystem::default())
}

/// Files at these paths, which are sorted, and the folders on the way to them.
fn tree(paths: &[&str]) -> FittedTree {
    let mut entries: Vec<CollectionEntry<'_>> = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    for path in paths {
        let names: Vec<&str> = path.split('/').collect();
        let (name, folders) = names.split_last().unwrap();
        let same = open.iter().zip(folders).take_while(|(open, wanted)| open == wanted).count();
        open.truncate(same);
        for name in &folders[same..] {
            entries.push(entry(open.len() as u8, name, EntryKind::Folder(FOLDER)));
            open.push(name);
        }
        entries.push(entry(folders.len() as u8, name, file(FILE)));
    }
    tree_of(FOLDER, entries)
}

fn write(staging: &Staging, path: &str) {
    staging.open_file(Path::new(path), &NOTHING_CARRIED).unwrap().write_all(b"x").unwrap();
}

#[test]
fn a_file_appears_under_its_name_only_at_the_commit() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Blob).unwrap();
    staging.open_file(&staging.blob_path(), &NOTHING_CARRIED).unwrap().write_all(b"content").unwrap();
    assert!(!out.path().join("thing").exists());

    let path = staging.commit().unwrap();

    assert_eq!(fs::read(path).unwrap(), b"content");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_appears_whole() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    write(&staging, "a/b/c");
    write(&staging, "d");

    let path = staging.commit().unwrap();

    assert_eq!(fs::read(path.join("a/b/c")).unwrap(), b"x");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn what_an_earlier_run_left_is_found_again() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    write(&staging, "a");
    drop(staging);

    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    assert!(!staging.is_new());
    assert!(staging.open_existing(Path::new("a")).unwrap().is_some());
    assert!(staging.open_existing(Path::new("a/b")).unwrap().is_none());
}

#[test]
fn an_existing_target_is_refused_at_the_start_and_at_the_commit() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Blob).unwrap();
    write(&staging, staging.blob_path().to_str().unwrap());
    fs::write(out.path().join("thing"), b"mine").unwrap();

    assert!(matches!(staging.commit(), Err(StagingError::Exists { .. })));
    drop(staging);
    let again = open(&out, false, ContentFormat::Blob);

    assert!(matches!(again, Err(StagingError::Exists { .. })));
    assert_eq!(fs::read(out.path().join("thing")).unwrap(), b"mine");
}

#[test]
fn a_link_planted_under_the_staging_name_is_refused() {
    let outside = TempDir::new().unwrap();
    for format in [ContentFormat::Blob, ContentFormat::Collection] {
        let out = TempDir::new().unwrap();
        symlink(outside.path(), out.path().join(part_name("thing", &root(), format))).unwrap();

        let opened = open(&out, false, format);

        assert!(matches!(opened, Err(StagingError::Clash { .. })), "{opened:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_link_planted_inside_the_staging_folder_is_not_followed_outside() {
    let out = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    symlink(outside.path(), out.path().join(part_name("thing", &root(), ContentFormat::Collection)).join("a")).unwrap();

    assert!(staging.open_file(Path::new("a/evil"), &NOTHING_CARRIED).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn two_fetches_of_the_same_target_do_not_mix() {
    let out = TempDir::new().unwrap();
    for format in [ContentFormat::Blob, ContentFormat::Collection] {
        let _first = open(&out, false, format).unwrap();
        let second = open(&out, false, format);
        assert!(matches!(second, Err(StagingError::Busy { .. })), "{second:?}");
        fs::remove_file(out.path().join(part_name("thing", &root(), format))).ok();
    }
}

#[test]
fn a_folder_taken_for_a_file_is_not_in_the_way_of_the_folder() {
    let out = TempDir::new().unwrap();
    let mistaken = open(&out, false, ContentFormat::Blob).unwrap();

    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    mistaken.discard().unwrap();
    write(&staging, "a");
    staging.commit().unwrap();

    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn a_leftover_with_another_name_is_not_adopted() {
    let out = TempDir::new().unwrap();
    let part = |format| out.path().join(part_name("thing", &root(), format));
    fs::write(out.path().join("kept open"), b"x").unwrap();
    fs::hard_link(out.path().join("kept open"), part(ContentFormat::Blob)).unwrap();
    let blob = open(&out, false, ContentFormat::Blob);
    assert!(matches!(blob, Err(StagingError::Foreign { .. })), "{blob:?}");

    fs::create_dir(part(ContentFormat::Collection)).unwrap();
    fs::hard_link(out.path().join("kept open"), part(ContentFormat::Collection).join("a")).unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    assert!(staging.open_existing(Path::new("a")).unwrap().is_none());
    staging.open_file(Path::new("a"), &NOTHING_CARRIED).unwrap().write_all(b"fetched").unwrap();
    assert_eq!(fs::read(out.path().join("kept open")).unwrap(), b"x");
}

#[test]
fn a_leftover_of_another_user_is_not_adopted() {
    for format in [ContentFormat::Blob, ContentFormat::Collection] {
        let out = TempDir::new().unwrap();
        let part = out.path().join(part_name("thing", &root(), format));
        match format {
            ContentFormat::Blob => fs::write(&part, b"x").unwrap(),
            ContentFormat::Collection => fs::create_dir(&part).unwrap(),
        }
        if std::os::unix::fs::chown(&part, Some(12_345), None).is_err() {
            return keyferry_needs::skip("root", "only root can give a file to another user");
        }
        let opened = open(&out, false, format);
        assert!(matches!(opened, Err(StagingError::Foreign { .. })), "{opened:?}");
    }
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_with_both_numbers() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    staging.check_room(1).unwrap();
    let refused = staging.check_room(u64::MAX).unwrap_err();
    assert!(matches!(&refused, StagingError::NoRoom { needed: u64::MAX, free, .. } if *free > 0), "{refused:?}");
}

#[test]
fn a_folder_gets_its_empty_folders_links_times_and_rights() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    let private = FileAttributes { private: true, executable: true, ..FILE };
    let link = EntryKind::Link(LinkTarget::new(b"../closed/run", 1).unwrap());
    let entries = vec![
        entry(0, "closed", EntryKind::Folder(FolderAttributes { private: true, ..FOLDER })),
        entry(1, "run", file(private)),
        entry(0, "open", EntryKind::Folder(FOLDER)),
        entry(1, "empty", EntryKind::Folder(FOLDER)),
        entry(1, "link", link),
        entry(0, "x", file(FILE)),
    ];
    let tree = tree_of(FOLDER, entries);
    for (path, file) in tree.files() {
        staging.open_file(&path, &file.attributes).unwrap().write_all(b"x").unwrap();
    }

    assert!(staging.finish_tree(&tree, &|| true).unwrap());
    let path = staging.commit().unwrap();

    let mode = |relative: &str| fs::symlink_metadata(path.join(relative)).unwrap().mode() & 0o777;
    assert_eq!((mode("closed"), mode("closed/run"), mode("x") & 0o600), (0o700, 0o700, 0o600));
    assert_eq!((mode("") & 0o700, mode("open") == mode("")), (0o700, true));
    assert_eq!(fs::read_link(path.join("open/link")).unwrap(), Path::new("../closed/run"));
    assert_eq!(fs::read(path.join("open/link")).unwrap(), b"x");
    let time = |relative: &str| {
        let found = fs::symlink_metadata(path.join(relative)).unwrap();
        found.mtime() * 1_000_000_000 + found.mtime_nsec()
    };
    for folder in ["", "closed", "open", "open/empty"] {
        assert_eq!(time(folder), FOLDER.modified.0, "{folder}");
    }
    assert_eq!((time("x"), time("closed/run")), (-5, -5));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_written_through_a_link_that_somebody_planted() {
    let out = TempDir::new().unwrap();
    let staging = open(&out, false, ContentFormat::Collection).unwrap();
    fs::write(out.path().join("mine"), b"mine").unwrap();
    let part = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    write(&staging, "there");
    symlink("there", part.join("inside")).unwrap();
    symlink("../mine", part.join("outside")).unwrap();

    for name in ["inside", "outside"] {
        assert!(staging.open_existing(Path::new(name)).unwrap().is_none(), "{name}");
        staging.open_file(Path::new(name), &NOTHING_CARRIED).unwrap().write_all(b"theirs").unwrap();
        assert!(fs::symlink_metadata(part.join(name)).unwrap().is_file(), "{name}");
    }

    assert_eq!(fs::read(part.join("there")).unwrap(), b"x");
    assert_eq!(fs::read(out.path().join("mine")).unwrap(), b"mine");
}

#[test]
fn overwriting_replaces_files_one_by_one_and_keeps_what_else_is_there() {
    let out = TempDir::new().unwrap();
    let thing = out.path().join("thing");
    fs::create_dir_all(thing.join("mine/empty")).unwrap();
    fs::set_permissions(thing.join("mine"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(thing.join("mine/file"), b"mine").unwrap();
    symlink("mine/file", thing.join("link")).unwrap();
    fs::write(thing.join("both"), b"old").unwrap();
    let staging = open(&out, true, ContentFormat::Collection).unwrap();
    write(&staging, "both");
    write(&staging, "new/file");
    let (number, open_before) = (fs::metadata(&thing).unwrap().ino(), fs::File::open(thing.join("both")).unwrap());

    assert_eq!(merge(&staging, &tree(&["both", "new/file"])), Merged::default());

    assert_eq!(fs::metadata(&thing).unwrap().ino(), number, "whoever is in the folder is so still");
    let read = |path: &str| fs::read(thing.join(path)).unwrap();
    assert_eq!((read("both"), read("new/file"), read("link")), (b"x".into(), b"x".into(), b"mine".into()));
    assert!(thing.join("link").is_symlink() && thing.join("mine/empty").is_dir());
    assert_eq!(fs::metadata(thing.join("mine")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::io::read_to_string(open_before).unwrap(), "old", "who reads the old file has all of it");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn what_is_of_another_kind_is_kept_and_nothing_goes_through_a_link() {
    let out = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let thing = out.path().join("thing");
    fs::create_dir_all(thing.join("folder/in the way")).unwrap();
    symlink(elsewhere.path(), thing.join("link")).unwrap();
    fs::write(thing.join("file"), b"mine").unwrap();
    let staging = open(&out, true, ContentFormat::Collection).unwrap();
    for path in ["file/a", "folder", "link/evil", "new"] {
        write(&staging, path);
    }

    let merged = merge(&staging, &tree(&["file/a", "folder", "link/evil", "new"]));

    assert_eq!(merged, Merged::default(), "it was known before");
    assert_eq!(
        (fs::read(thing.join("new")).unwrap(), fs::read(thing.join("file")).unwrap()),
        (b"x".into(), b"mine".into())
    );
    assert!(thing.join("folder/in the way").is_dir() && thing.join("link").is_symlink());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn what_comes_or_changes_at_the_last_moment_is_kept() {
    let out = TempDir::new().unwrap();
    let thing = out.path().join("thing");
    fs::create_dir(&thing).unwrap();
    let staging = open(&out, true, ContentFormat::Collection).unwrap();
    let tree = tree(&["a", "b", "c/d"]);
    for path in ["a", "b", "c/d"] {
        write(&staging, path);
    }
    let present = PresentTree::nothing(&tree);
    fs::write(thing.join("a"), b"mine").unwrap();
    fs::write(thing.join("c"), b"mine").unwrap();

    let merging = Merging { present: &present, tree: &tree, mirror: false, is_as_found: &|_, _| true, go_on: &|| true };
    let merged = staging.merge(&merging).unwrap().unwrap();

    assert_eq!(merged.kept, [0, 2, 3], "a, the folder c, and the file in it");
    let read = |path: &str| fs::read(thing.join(path)).unwrap();
    assert_eq!((read("a"), read("b"), read("c")), (b"mine".into(), b"x".into(), b"mine".into()));
}
