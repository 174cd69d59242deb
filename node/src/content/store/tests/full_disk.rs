//! A full disk: a file system of 6 MiB in a mount namespace of its own, which the test runs itself in.

use std::{
    env,
    io::Write,
    process::{Command, Stdio},
};

use super::*;

/// Where the small file system is, in the process that is inside.
const INSIDE: &str = "KEYFERRY_FULL_DISK";
const TEST: &str =
    "content::store::tests::full_disk::on_a_full_disk_what_is_shared_can_be_listed_removed_and_collected";

#[test]
fn on_a_full_disk_what_is_shared_can_be_listed_removed_and_collected() {
    match env::var_os(INSIDE) {
        Some(disk) => make_room(&PathBuf::from(disk)),
        None => run_inside(),
    }
}

fn run_inside() {
    if keyferry_needs::lacks(&["unshare"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=6m none \"$0\"";
    let unshared = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", &format!("{mount} && {then}")]).arg(dir.path());
        command.stdin(Stdio::null());
        command
    };
    if !unshared("true").output().unwrap().status.success() {
        return keyferry_needs::skip("namespaces", "this machine does not allow mount namespaces");
    }
    let mut test = unshared("exec \"$1\" --exact \"$2\" --nocapture");
    let output = test.arg(env::current_exe().unwrap()).arg(TEST).env(INSIDE, dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

fn fill(path: &Path) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    for len in [4096, 1] {
        while file.write(&vec![1; len]).is_ok() {}
    }
}

fn make_room(disk: &Path) {
    let (home, fill_file) = (disk.join("home"), disk.join("fill"));
    let (kept, removed) = (disk.join("kept"), disk.join("removed"));
    fs::write(&kept, bytes(1, 200_000)).unwrap();
    fs::write(&removed, bytes(2, 200_000)).unwrap();
    let orphan = bytes(3, 50_000);
    let store = Store::open(&home).unwrap().0;
    let kept = import(&store, &kept, "kept", ImportMode::Copy).unwrap().root;
    let removed = import(&store, &removed, "removed", ImportMode::Copy).unwrap().root;
    let orphan_path = store.0.folders.blob(&ContentHash::of(&orphan));
    fs::create_dir_all(orphan_path.parent().unwrap()).unwrap();
    fs::write(&orphan_path, &orphan).unwrap();
    age(&orphan_path);
    drop(store);

    fill(&fill_file);
    let store = Store::open(&home).unwrap().0;
    assert_eq!(store.roots(), [kept.clone(), removed.clone()]);
    assert!(store.remove_root(&removed.hash).unwrap());
    assert_eq!(store.roots(), std::slice::from_ref(&kept));
    assert!(!store.0.folders.blob(&removed.hash).exists());
    drop(store);

    fill(&fill_file);
    let store = Store::open(&home).unwrap().0;
    store.gc(Duration::from_secs(60)).unwrap();
    assert!(!orphan_path.exists());
    drop(store);
    let store = Store::open(&home).unwrap().0;
    assert_eq!(store.roots(), std::slice::from_ref(&kept));
    assert!(read_all(&store, &kept.hash) == bytes(1, 200_000));
}
