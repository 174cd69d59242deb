//! To whom content is given, and that it is no more as soon as it is withdrawn.

use keyferry_proto::{
    catalogue::SignedEntry,
    identity::{NodeKey, NodeSecret},
    message::{CatalogueReply, Message, Refusal, Request, ResolveReply},
    transfer::units::UnitRanges,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    content::store::{Audience, Invited, RootState},
    net::session::SessionStream,
};

/// More than a session and its sockets take in while nobody reads.
const LARGE: u64 = 64 << 20;

fn key(number: u8) -> NodeKey {
    NodeSecret::from_bytes(&[number; 32]).public()
}

/// Everything that is answered to a request.
async fn answer(session: &Session, request: &Request) -> Vec<u8> {
    let mut stream = session.open().await.unwrap();
    stream.write_all(&request.to_frame()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn content(root: ContentHash) -> Request {
    Request::Content(keyferry_proto::message::ContentRequest::groups(root, UnitRanges::all()))
}

fn not_found() -> Vec<u8> {
    keyferry_proto::message::ContentReply::Refused(Refusal::NotFound).to_frame()
}

fn only(contacts: bool, nodes: Vec<NodeKey>) -> Audience {
    Audience::Only(Invited::new(contacts, nodes).unwrap())
}

impl Source {
    fn share(&self, audience: &Audience) {
        let name = "it".parse().unwrap();
        self.store
            .import(&self.path(), &name, Some(audience), ImportMode::InPlace, &|_| {}, &AtomicBool::new(false))
            .unwrap();
    }
}

/// Reads to the end of what had been sent when the upload broke off.
async fn rest_of(mut stream: SessionStream) -> u64 {
    let (mut buffer, mut len) = (vec![0; 1 << 16], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        len += read as u64;
    }
    len
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_a_node_is_answered_as_what_is_not_there_at_all() {
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let session = provider.session().await;
    let resolve = |name: &str| Request::Resolve(name.parse().unwrap());
    let nowhere = ContentHash::of(b"what nobody has");
    source.store.unshare(&"it".parse().unwrap()).unwrap();
    let empty = answer(&session, &Request::Catalogue).await;
    assert_eq!(empty, CatalogueReply::End { count: 0 }.to_frame());

    for audience in [None, Some(only(true, vec![])), Some(only(false, vec![key(98)])), Some(only(true, vec![key(98)]))]
    {
        if let Some(audience) = &audience {
            source.share(audience);
        }
        let named = answer(&session, &resolve("it")).await;
        assert_eq!(named, ResolveReply::NotFound.to_frame(), "{audience:?}");
        assert_eq!(named, answer(&session, &resolve("nothing")).await);
        let given = answer(&session, &content(source.root)).await;
        assert_eq!(given, not_found(), "{audience:?}");
        assert_eq!(given, answer(&session, &content(nowhere)).await);
        assert_eq!(empty, answer(&session, &Request::Catalogue).await, "{audience:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_share_names_has_it_by_name_by_hash_and_in_the_catalogue() {
    let source = Source::file(3 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let session = provider.session().await;
    let listed = async || {
        let bytes = answer(&session, &Request::Catalogue).await;
        bytes != CatalogueReply::End { count: 0 }.to_frame()
    };
    for (audience, is_listed) in [
        (only(false, vec![session_key()]), true),
        (Audience::Everyone { listed: true, announced: false }, true),
        (Audience::Everyone { listed: false, announced: true }, false),
    ] {
        source.share(&audience);
        let named = answer(&session, &Request::Resolve("it".parse().unwrap())).await;
        let ResolveReply::Found(entry) = ResolveReply::decode(&named[4..]).unwrap() else { panic!("{audience:?}") };
        assert_eq!(verified(&entry, provider.node()), source.root);
        assert!(answer(&session, &content(source.root)).await.len() as u64 > 3 * GROUP, "{audience:?}");
        assert_eq!(listed().await, is_listed, "{audience:?}");
    }
}

fn verified(entry: &SignedEntry, node: NodeKey) -> ContentHash {
    entry.verify(&node).unwrap().hash
}

/// The key of whoever fetches from a provider in these tests.
fn session_key() -> NodeKey {
    key(99)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_is_not_sent_on_and_gives_its_place_back() {
    let source = Source::file(LARGE);
    let provider = source.provider(1, Behaviour::Serve).await;
    let session = provider.session().await;
    let name = "it".parse().unwrap();
    let everyone = Audience::default();
    let withdrawals: [(&str, &dyn Fn()); 4] = [
        ("unshared", &|| drop(source.store.unshare(&name).unwrap())),
        ("withdrawn by its hash", &|| assert!(source.store.withdraw(&source.root).unwrap())),
        ("shared with somebody else", &|| source.share(&only(false, vec![key(98)]))),
        ("removed", &|| assert!(source.store.remove_root(&source.root).unwrap())),
    ];
    for (how, withdraw) in withdrawals {
        source.share(&everyone);
        let stream = provider::ask_for_all(&session, source.root).await;
        until(|| provider.places_taken() == 1).await;

        withdraw();

        until(|| provider.places_taken() == 0).await;
        let got = rest_of(stream).await;
        assert!(got < LARGE, "{how}: {got} bytes");
        assert_eq!(answer(&session, &content(source.root)).await, not_found(), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_while_other_things_change() {
    let source = Source::file(LARGE);
    let provider = source.provider(1, Behaviour::Serve).await;
    let session = provider.session().await;
    let stream = provider::ask_for_all(&session, source.root).await;
    until(|| provider.places_taken() == 1).await;

    fs::write(source.content.path().join("other"), b"other").unwrap();
    import(&source.store, &source.content.path().join("other"));
    source.store.unshare(&"other".parse().unwrap()).unwrap();
    source.share(&only(false, vec![session_key()]));

    assert!(rest_of(stream).await > LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_is_given_to_nobody_unless_it_is_seeded() {
    let source = Source::file(3 * GROUP);
    let first = source.provider(1, Behaviour::Serve).await;
    for seed in [false, true] {
        let getter = Getter::new();
        let (found, providers) = mpsc::channel(1);
        found.send(first.session().await).await.unwrap();
        let job = Job { seed, ..getter.job(source.root) };
        let providers = FoundSources { sessions: providers, untried: getter.untried.subscribe() };
        fetch_with(job, &getter.patience, providers, |_| {}, getter.cancel.clone()).await.unwrap();

        let second = Provider::start(2, getter.store.clone(), Behaviour::Serve).await;
        let given = answer(&second.session().await, &content(source.root)).await;

        let state = getter.store.root(&source.root).unwrap().state;
        assert_eq!(state, if seed { RootState::Seeded } else { RootState::Kept });
        assert_eq!(given == not_found(), !seed);
        assert_eq!(getter.store.announced(), if seed { vec![source.root] } else { vec![] });
    }
}
