//! The data folder as its user meets it.

use std::fs;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let dir = folder();
    let first = Home::open(dir.path()).unwrap().identity().unwrap().public();
    let again = Home::open(dir.path()).unwrap().identity().unwrap().public();
    assert_eq!(first, again);
}

#[test]
fn a_second_process_is_told_that_the_folder_is_in_use() {
    let dir = folder();
    let _first = Home::open(dir.path()).unwrap();
    let error = Home::open(dir.path()).unwrap_err();
    assert!(matches!(error, HomeError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("another keyferry is running"), "{error}");
}

#[cfg(unix)]
#[test]
fn the_folder_and_the_key_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let path = dir.path().join("deep").join("home");
    let home = Home::open(&path).unwrap();
    home.identity().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(home.identity_path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused_with_advice() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let home = Home::open(dir.path()).unwrap();
    home.identity().unwrap();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(home.identity_path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = home.identity().unwrap_err();
        assert!(matches!(error, HomeError::ExposedKey { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(home.identity_path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(home.identity().is_ok());
}

#[test]
fn an_encrypted_identity_asks_for_its_passphrase() {
    let dir = folder();
    let home = Home::open(dir.path()).unwrap();
    let made = home.new_identity(Some("open sesame")).unwrap().public();
    assert!(matches!(home.identity().unwrap_err(), HomeError::PassphraseNeeded { .. }));
    assert!(matches!(
        home.unlock("sesame").unwrap_err(),
        HomeError::KeyFile { source: KeyFileError::WrongPassphrase, .. }
    ));
    assert_eq!(home.unlock("open sesame").unwrap().public(), made);
}

#[test]
fn an_identity_is_never_overwritten() {
    let dir = folder();
    let home = Home::open(dir.path()).unwrap();
    let kept = home.identity().unwrap().public();
    assert!(matches!(home.new_identity(None).unwrap_err(), HomeError::IdentityExists { .. }));
    assert_eq!(home.identity().unwrap().public(), kept);
}

#[test]
fn a_damaged_key_file_is_an_error_and_stays_where_it_is() {
    let dir = folder();
    let home = Home::open(dir.path()).unwrap();
    for bytes in [&b""[..], b"garbage", &[0; 5000]] {
        atomic_file::write_atomically(&home.identity_path(), bytes, 0o600).unwrap();
        let error = home.identity().unwrap_err();
        assert!(matches!(error, HomeError::KeyFile { source: KeyFileError::Malformed { .. }, .. }), "{error}");
        assert_eq!(fs::read(home.identity_path()).unwrap(), bytes);
    }
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let dir = folder();
    let path = dir.path().join("home");
    fs::write(&path, b"").unwrap();
    assert!(matches!(Home::open(&path).unwrap_err(), HomeError::NotAFolder { .. }));
}

#[test]
fn what_a_killed_process_left_half_written_is_removed() {
    let dir = folder();
    let half = dir.path().join(".keyferry-tmp-abc");
    fs::write(&half, b"half").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    File::options().write(true).open(&half).unwrap().set_modified(long_ago).unwrap();
    fs::write(dir.path().join("kept"), b"whole").unwrap();
    let _home = Home::open(dir.path()).unwrap();
    assert!(!half.exists());
    assert!(dir.path().join("kept").exists());
}

#[test]
fn what_another_process_is_writing_now_is_left_alone() {
    let dir = folder();
    let written = dir.path().join(".keyferry-tmp-abc");
    fs::write(&written, b"half").unwrap();
    let _home = Home::open(dir.path()).unwrap();
    assert!(written.exists());
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_open_is_shut_to_them() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    for mode in [0o777, 0o750, 0o705] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        drop(Home::open(dir.path()).unwrap());
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_of_another_user_is_refused() {
    let dir = folder();
    if std::os::unix::fs::chown(dir.path(), Some(12_345), None).is_err() {
        return keyferry_needs::skip("root", "only root can give a folder to another user");
    }
    let error = Home::open(dir.path()).unwrap_err();
    assert!(matches!(error, HomeError::OfAnotherUser { owner: 12_345, .. }), "{error}");
    assert!(matches!(Home::prepare(dir.path()), Err(HomeError::OfAnotherUser { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
