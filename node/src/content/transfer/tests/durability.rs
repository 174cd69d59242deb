//! What of a fetch is on the disk, and what becomes of it when it was not.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf};

use super::*;
use crate::{base::durable::recorded, content::transfer::staging::StagingError};

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_the_disk_only_if_it_is_told_to() {
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    for sync in [false, true] {
        let mut getter = Getter::new();
        getter.sync = sync;
        let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

        let synced: Vec<_> = recorded::below(getter.out.path()).into_iter().map(|synced| synced.file).collect();
        match sync {
            false => assert_eq!(synced, [] as [std::path::PathBuf; 0]),
            // Under its first name, and then under its own.
            true => assert!(synced.len() == 2 && synced[1] == outcome.path, "{synced:?}"),
        }
        let home = getter.home.path().canonicalize().unwrap();
        assert_eq!(recorded::below(&home).len(), usize::from(sync), "the outboard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_took_is_fetched_again_unasked_and_what_its_owner_changed_is_left() {
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let getter = Getter::new();
    let get = async || getter.fetch_from(source.root, vec![provider.session().await]).await;
    get().await.unwrap();
    let noted = FetchEndsFile::of(&getter);
    for damage in [&b""[..], &vec![0; 3 * GROUP as usize]] {
        fs::write(getter.got(), damage).unwrap();
        let changed = fs::metadata(getter.got()).unwrap();
        let changed = i128::from(changed.ctime()) * 1_000_000_000 + i128::from(changed.ctime_nsec());
        // In this boot nothing was cut; and in another one, its last change is a nanosecond younger than the fetch.
        for (in_another_boot, fetched_at) in [(false, None), (false, Some(changed)), (true, Some(changed - 1))] {
            noted.pretend(in_another_boot, fetched_at);
            let kept = get().await;
            assert!(matches!(kept, Err(FetchError::Target(StagingError::Exists { .. }))), "{kept:?}");
            assert_eq!(fs::read(getter.got()).unwrap(), damage);
        }
        noted.pretend(true, Some(changed));
        get().await.unwrap();
        assert_eq!(fs::read(getter.got()).unwrap(), bytes(3 * GROUP));
    }
    // And what is whole is not fetched again.
    noted.pretend(true, None);
    assert!(get().await.unwrap().was_there);
    // Without the note, which may be lost, too, nothing is taken for damage.
    fs::write(getter.got(), b"").unwrap();
    for lost in [&b"{"[..], b""] {
        fs::write(&noted.path, lost).unwrap();
        assert!(matches!(get().await, Err(FetchError::Target(StagingError::Exists { .. }))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_took_before_a_fetch_had_ended_is_fetched_again_unasked() {
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let getter = Getter::new();
    let get = async || getter.fetch_from(source.root, vec![provider.session().await]).await;
    get().await.unwrap();
    // The list of roots, which comes last, does not have it yet.
    getter.store.remove_root(&source.root).unwrap();
    fs::write(getter.got(), vec![0; 3 * GROUP as usize]).unwrap();
    let changed = fs::metadata(getter.got()).unwrap();
    let changed = i128::from(changed.ctime()) * 1_000_000_000 + i128::from(changed.ctime_nsec());
    FetchEndsFile::of(&getter).pretend(true, Some(changed));
    get().await.unwrap();
    assert_eq!(fs::read(getter.got()).unwrap(), bytes(3 * GROUP));
}

/// What a getter has noted of its one fetch.
struct FetchEndsFile {
    path: PathBuf,
    noted: serde_json::Value,
}

impl FetchEndsFile {
    fn of(getter: &Getter) -> Self {
        let path = getter.home.path().join("fetched.json");
        let noted = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Self { path, noted }
    }

    /// Has it that the fetch was in another boot, or ended at another time.
    fn pretend(&self, in_another_boot: bool, changed_nanos: Option<i128>) {
        let mut noted = self.noted.clone();
        let end = &mut noted["targets"][0]["end"];
        assert!(end["boot"].is_string() && end["changed_nanos"].is_number(), "{end}");
        if in_another_boot {
            end["boot"] = "00000000000000000000000000000001".into();
        }
        if let Some(nanos) = changed_nanos {
            end["changed_nanos"] = i64::try_from(nanos).unwrap().into();
        }
        fs::write(&self.path, noted.to_string()).unwrap();
    }
}
