//! What of a fetch is on the disk, and what becomes of it when it was not.

use keyferry_net::time::UnixTime;

use super::*;
use crate::{
    base::durable::recorded,
    content::{store::Root, transfer::staging::StagingError},
};

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
    const HOUR: i64 = 3600;
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let getter = Getter::new();
    let get = async || getter.fetch_from(source.root, vec![provider.session().await]).await;
    get().await.unwrap();
    let fetched = getter.store.root(&source.root).unwrap();
    // As if it had come in so many seconds later.
    let fetched_after = |seconds: i64| {
        let added = UnixTime(fetched.added.0.saturating_add_signed(seconds));
        getter.store.remove_root(&source.root).unwrap();
        getter.store.add_fetched(Root { added, ..fetched.clone() }, Vec::new()).unwrap();
    };
    for damage in [&b""[..], &vec![0; 3 * GROUP as usize]] {
        fs::write(getter.got(), damage).unwrap();
        fetched_after(-HOUR);
        let changed = get().await;
        assert!(matches!(changed, Err(FetchError::Target(StagingError::Exists { .. }))), "{changed:?}");
        assert_eq!(fs::read(getter.got()).unwrap(), damage);

        fetched_after(HOUR);
        get().await.unwrap();
        assert_eq!(fs::read(getter.got()).unwrap(), bytes(3 * GROUP));
    }
    // And what is whole is not fetched again.
    fetched_after(HOUR);
    assert!(get().await.unwrap().was_there);
}
