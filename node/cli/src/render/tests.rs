use std::time::{Duration, Instant};

use keyferry::ContentHash;

use super::{path::turn_text, *};
use crate::pace::Pace;
use keyferry::{
    PathClass, PathStrategy, SourceInfo, Status,
    control::{
        CandidateInfo, ChangeCounts, ChangeKind, FailureKind, MappingInfo, PairInfo, PingReply, PingStage, Pinged,
        SameKeySeen, StageName, TrafficInfo, TurnInfo,
    },
};

const NODE: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

fn context() -> RenderContext {
    RenderContext { program: "keyferry".to_owned(), listed_node: None, connected: Vec::new() }
}

fn result(event: &Event) -> String {
    match render(event, &context()) {
        Shown::Result(text) => text,
        other => panic!("not a result: {other:?}"),
    }
}

fn shared() -> Shared {
    Shared {
        name: "holiday".parse().unwrap(),
        hash: ContentHash::EMPTY,
        format: ContentFormat::Collection,
        size: 3 << 30,
        files: 2314,
        audience: Audience::default(),
        address: format!("keyferry:{NODE}/holiday").parse().unwrap(),
        address_with_hints: format!("keyferry:{NODE}/holiday?via=/ip4/192.0.2.1/tcp/4600").parse().unwrap(),
    }
}

fn path(node: &str) -> PathInfo {
    PathInfo {
        node: Some(node.to_owned()),
        remote: "192.0.2.1:4600".parse().unwrap(),
        path: PathClass::Direct,
        strategy: PathStrategy::Dialled,
        ttl: None,
        relay: None,
        why: None,
        description: "direct (LAN, 3 ms)".to_owned(),
        took: Duration::from_millis(3),
    }
}

fn fetched() -> Fetched {
    Fetched {
        hash: ContentHash::EMPTY,
        format: ContentFormat::Collection,
        path: "/tmp/holiday".into(),
        was_there: false,
        changes: ChangeCounts::default(),
        seeded: false,
        size: 1 << 30,
        files: 12,
        received_bytes: 768 << 20,
        resumed_bytes: 256 << 20,
        from: vec![SourceInfo { path: path(NODE), bytes: 1 }],
        took: Duration::from_secs(3),
        first_byte: Some(Duration::from_millis(80)),
    }
}

#[test]
fn share_says_what_to_type_on_the_other_side() {
    assert_eq!(
        result(&Event::Shared(shared())),
        "\
Shared holiday: folder, 2,314 files, 3.00 GiB

On the other machine, type:
  keyferry get keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/holiday

If the two do not find each other that way:
  keyferry get 'keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/holiday?via=/ip4/192.0.2.1/tcp/4600'

By its content, from anyone who offers it:
  keyferry get keyferry:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 -o holiday

"
    );
}

#[test]
fn share_without_hints_shows_one_address() {
    let shared = Shared { address_with_hints: shared().address, ..shared() };
    assert!(!result(&Event::Shared(shared)).contains("do not find each other"));
}

#[test]
fn get_ends_with_what_came_from_whom_by_which_path_in_what_time() {
    assert_eq!(
        result(&Event::Fetched(fetched())),
        "\
Fetched /tmp/holiday: folder, 12 files, 1.00 GiB
  from 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, direct (LAN, 3 ms)
  256 MiB of it was here already, and was verified
  768 MiB in 3.0 s, 256 MiB/s; first byte after 80 ms
"
    );
}

#[test]
fn a_share_says_to_whom_it_is_offered_and_who_was_sent_how_much() {
    let node: keyferry::NodeKey = NODE.parse().unwrap();
    let audience = Audience::Only(keyferry::Invited::new(true, vec![node]).unwrap());
    let root = RootInfo {
        state: RootState::Shared { name: "film".parse().unwrap(), audience },
        hash: ContentHash::EMPTY,
        format: ContentFormat::Blob,
        size: 5,
        files: 1,
        path: None,
        followed: false,
    };
    let sent = |node: Option<&str>, contact: Option<&str>, bytes| FetcherInfo {
        node: node.map(str::to_owned),
        contact: contact.map(str::to_owned),
        bytes,
        last: 1,
    };
    let share = Event::Share(ShareInfo {
        root,
        named_contacts: vec![ContactInfo { node: NODE.to_owned(), name: "Ada".to_owned() }],
        fetched: vec![sent(Some(NODE), Some("Ada"), 2048), sent(None, None, 5)],
    });
    let text = result(&share);
    assert!(text.contains("film  (shared with contacts, Ada)\n"), "{text}");
    assert!(text.ends_with("    sent to Ada: 2.00 KiB\n    sent to others, or by its hash: 5 bytes\n"), "{text}");
    // It is one line of JSON, from which the same can be read.
    let read: Event = serde_json::from_str(&share.to_line()).unwrap();
    assert_eq!(result(&read), text);
}

#[test]
fn get_of_what_is_here_already_says_so() {
    let fetched = Fetched {
        format: ContentFormat::Blob,
        received_bytes: 0,
        resumed_bytes: 1 << 30,
        from: vec![],
        took: Duration::from_millis(400),
        first_byte: None,
        ..fetched()
    };
    assert_eq!(
        result(&Event::Fetched(fetched)),
        "\
Fetched /tmp/holiday: file, 1.00 GiB
  1.00 GiB of it was here already, and was verified
  nothing had to be fetched; done in 400 ms
"
    );
}

#[test]
fn catalogue_lines_stand_in_columns() {
    let entry = |name: &str, format, size, files| {
        result(&Event::Entry(Entry { name: name.parse().unwrap(), hash: ContentHash::EMPTY, format, size, files }))
    };
    let listing =
        entry("a.iso", ContentFormat::Blob, 734 << 20, 1) + &entry("b", ContentFormat::Collection, 1000, 2314);
    assert_eq!(listing, "   734 MiB           file  a.iso\n1000 bytes    2,314 files  b\n");
}

#[test]
fn end_of_a_catalogue_says_how_to_fetch() {
    let listed = |node: &str| {
        let context = RenderContext { listed_node: Some(node.to_owned()), ..context() };
        render(&Event::Listed { count: 2 }, &context)
    };
    let notice = |text: &str| Shown::Notice(text.to_owned());
    assert_eq!(
        listed(NODE),
        notice(
            "2 names; fetch one by: keyferry get keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/NAME"
        )
    );
    assert_eq!(listed("keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/holiday"), listed(NODE));
    assert_eq!(
        listed("keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X?via=/ip4/192.0.2.1/tcp/1"),
        notice(
            "2 names; fetch one by: keyferry get 'keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/NAME?via=/ip4/192.0.2.1/tcp/1'"
        )
    );
}

#[test]
fn another_node_with_the_same_key_is_warned_of_with_what_to_do() {
    let info = SameKeyInfo {
        node: NODE.to_owned(),
        since: 1_800_000_000,
        seen: SameKeySeen::At("192.0.2.7:4600".parse().unwrap()),
        key_file: "/home/x/keyferry/identity.key".into(),
    };
    let Shown::Notice(line) = render(&Event::SameKey(info.clone()), &context()) else { panic!("no notice") };
    assert!(line.starts_with("warning: another running node has this node's key (it is at 192.0.2.7:4600)"), "{line}");
    assert!(line.contains("stop one of the two") && line.contains("move /home/x/keyferry/identity.key away"), "{line}");

    let met = Status { same_key: Some(info), ..status() };
    let row = "same key    another running node has this key, it is at 192.0.2.7:4600\n";
    assert!(result(&Event::Status(Box::new(met))).contains(row));
}

#[test]
fn what_was_there_already_is_said_to_be() {
    let there = Fetched { was_there: true, received_bytes: 0, resumed_bytes: 1 << 30, from: Vec::new(), ..fetched() };
    assert_eq!(
        result(&Event::Fetched(there)),
        "Already there /tmp/holiday: folder, 12 files, 1.00 GiB\n  every byte is as it should be; nothing was fetched\n"
    );
}

#[test]
fn hostile_names_cannot_steer_the_terminal() {
    let hostile = "evil\u{1b}]0;owned\u{7}\u{202e}\n";
    let events = [
        Event::Notice { message: hostile.to_owned() },
        Event::Stage { message: hostile.to_owned() },
        Event::Connected(PathInfo { description: hostile.to_owned(), ..path(hostile) }),
        Event::Fetched(Fetched {
            path: hostile.into(),
            from: vec![SourceInfo { path: path(hostile), bytes: 1 }],
            ..fetched()
        }),
        Event::Root(RootInfo {
            state: RootState::Kept,
            hash: ContentHash::EMPTY,
            format: ContentFormat::Blob,
            size: 0,
            files: 1,
            path: Some(hostile.into()),
            followed: false,
        }),
        Event::Damaged { hash: ContentHash::EMPTY, path: hostile.into(), problem: hostile.to_owned() },
    ];
    for event in events {
        let text = match render(&event, &context()) {
            Shown::Result(text) | Shown::Notice(text) | Shown::Stage(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
        assert!(!text.contains("\u{7}") && text.contains(r"evil\u{1b}]0;owned\u{7}\u{202e}\u{a}"), "{text:?}");
    }
}

#[test]
fn failure_is_one_line_and_one_of_advice() {
    let failure = Failure::new(FailureKind::Network, "no provider of this content was found")
        .try_to("ask the other side for an address with ?via=");
    assert_eq!(
        failure_text(&failure),
        "error: no provider of this content was found\n  try: ask the other side for an address with ?via=\n"
    );
    assert_eq!(failure_text(&Failure::new(FailureKind::Local, "disk\nfull")), "error: disk\\u{a}full\n");
}

#[test]
fn progress_tells_share_rate_and_time_left() {
    let start = Instant::now();
    let mut pace = Pace::new(start, 0);
    pace.observe(start + Duration::from_secs(1), 100 << 20);
    let progress =
        ProgressLine { what: "Fetching", done_bytes: 100 << 20, total_bytes: 1 << 30, files: Some((1041, 2314)) };
    assert_eq!(
        progress_text(&progress, &pace),
        "9 %, 100 MiB of 1.00 GiB, 1,041 of 2,314 files, 100 MiB/s, 9.2 s left"
    );
    assert_eq!(short_progress_text(&progress, &pace), "9 %, 100 MiB/s, 9.2 s left");
}

#[test]
fn progress_of_unknown_size_tells_what_is_done() {
    let progress = ProgressLine { what: "Fetching", done_bytes: 65_536, total_bytes: 0, files: Some((0, 0)) };
    assert_eq!(progress_text(&progress, &Pace::new(Instant::now(), 0)), "64.0 KiB");
}

#[test]
fn hundred_percent_means_all() {
    let progress = ProgressLine { what: "Verifying", done_bytes: 999_999, total_bytes: 1_000_000, files: None };
    assert!(progress_text(&progress, &Pace::new(Instant::now(), 0)).starts_with("99 %"));
}

#[test]
fn store_results_are_plain_sentences() {
    assert_eq!(result(&Event::Verified { sound: 3, damaged: 0 }), "3 blobs verified, all sound\n");
    assert_eq!(result(&Event::Verified { sound: 1, damaged: 2 }), "1 blob sound, 2 damaged\n");
    assert_eq!(result(&Event::Collected { files: 1, bytes: 2048 }), "removed 1 file, freed 2.00 KiB\n");
    assert_eq!(
        result(&Event::Root(RootInfo {
            state: RootState::Kept,
            hash: ContentHash::EMPTY,
            format: ContentFormat::Blob,
            size: 5,
            files: 1,
            path: None,
            followed: false,
        })),
        "   5 bytes           file  (kept: given to nobody)\n    \
         af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\n    a copy in the data folder\n"
    );
}

fn status() -> Status {
    Status {
        node: NODE.to_owned(),
        version: "0.1.0".to_owned(),
        home: "/home/x/keyferry".into(),
        running: true,
        listen: vec!["0.0.0.0:4600".parse().unwrap()],
        hints: vec!["/ip4/192.0.2.1/tcp/4600".to_owned()],
        wan_peers: 12,
        lan_peers: 1,
        public: true,
        candidates: vec![CandidateInfo {
            kind: "host".to_owned(),
            tcp_type: "passive".to_owned(),
            addr: "192.0.2.1:4600".parse().unwrap(),
        }],
        mapping: MappingInfo::EndpointIndependent,
        clock: None,
        same_key: None,
        circuits: vec!["/ip4/203.0.113.1/tcp/4600/p2p/X/p2p-circuit".to_owned()],
        calls: "contacts".to_owned(),
        sessions: 1,
        paths: vec![path(NODE)],
        shared: 2,
        turn: Some(vec![TurnInfo {
            server: "turn:203.0.113.1:3478".to_owned(),
            found: false,
            took_ms: Some(34),
            reason: None,
            allocations: 1,
        }]),
        relay: None,
        sent_bytes: 1 << 20,
        received_bytes: 0,
        traffic: [("ping".to_owned(), TrafficInfo { in_bytes: 2048, out_bytes: 100 })].into(),
        counters: [("refused_offers".to_owned(), 7), ("refused_manifests".to_owned(), 0)].into(),
    }
}

#[test]
fn status_of_a_running_node() {
    assert_eq!(
        result(&Event::Status(Box::new(status()))),
        "\
node        12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X
version     0.1.0
data        /home/x/keyferry
sharing     2 names
state       running
listening   0.0.0.0:4600
hint        /ip4/192.0.2.1/tcp/4600
candidate   192.0.2.1:4600 (host, passive)
NAT         none, or it shows everyone the same address
callable at /ip4/203.0.113.1/tcp/4600/p2p/X/p2p-circuit
calls       of contacts
DHT         served to others; 12 nodes wide, 1 node local
sessions    1
session     12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, direct (LAN, 3 ms)
may relay   turn:203.0.113.1:3478 gave an address after 34 ms; 1 address now
sent        1.00 MiB
received    0 bytes
traffic     ping: 2.00 KiB in, 100 bytes out
counter     refused_offers 7
"
    );
    assert_eq!(serving_text(&status()), "serving until Ctrl-C, 1 session, 1.00 MiB sent, 13 other nodes known");
    assert_eq!(
        up_text(&status()),
        "\
12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X
  listening on 0.0.0.0:4600
  others may use --bootstrap /ip4/192.0.2.1/tcp/4600
  sharing 2 names
"
    );
}

#[test]
fn status_of_a_folder_at_rest() {
    assert_eq!(
        result(&Event::Status(Box::new(Status { running: false, ..status() }))),
        "\
node        12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X
version     0.1.0
data        /home/x/keyferry
sharing     2 names
state       not running
"
    );
}

#[test]
fn ping_shows_each_step_with_its_time_and_the_pairs_below() {
    let candidate = |kind: &str, addr: &str| CandidateInfo {
        kind: kind.to_owned(),
        tcp_type: "simultaneous-open".to_owned(),
        addr: addr.parse().unwrap(),
    };
    let pair = PairInfo {
        local: candidate("host", "10.0.0.2:4600"),
        remote: candidate("server-reflexive", "203.0.113.9:1024"),
        state: "works".to_owned(),
        attempts: 2,
        took: Duration::from_millis(34),
    };
    let stage = |stage, micros, detail: &str, pairs| {
        let (took, detail) = (Duration::from_micros(micros), detail.to_owned());
        result(&Event::PingStage(PingStage { stage, took, detail, pairs }))
    };
    let text = [
        stage(StageName::Offer, 5_210, "found, with 1 address", vec![]),
        stage(StageName::Checks, 134_000, "direct (opening SYN, TTL 2, 34 ms)", vec![pair]),
        result(&Event::PingReply(PingReply { number: 1, took: Duration::from_micros(40_210) })),
        result(&Event::Pinged(Pinged {
            node: NODE.to_owned(),
            path: path(NODE),
            total: Duration::from_millis(212),
            round_trip: Some(Duration::from_micros(40_210)),
        })),
    ];
    assert_eq!(
        text.concat(),
        "\
offer           5.21 ms  found, with 1 address
checks           134 ms  direct (opening SYN, TTL 2, 34 ms)
    host 10.0.0.2:4600 to server-reflexive 203.0.113.9:1024: works (2 attempts, 34.0 ms)
round trip      40.2 ms
reached 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, direct (LAN, 3 ms) after 212 ms; round trip 40.2 ms
"
    );
}

#[test]
fn a_node_that_is_reached_by_another_path_is_told_as_a_change() {
    let relayed = PathInfo {
        path: PathClass::Relay,
        description: "relayed by 203.0.113.1 (both NATs map by destination)".to_owned(),
        ..path(NODE)
    };
    let mut context = context();
    let mut told = |path: &PathInfo| {
        let event = Event::Connected(path.clone());
        let shown = render(&event, &context);
        context.note(&event);
        match shown {
            Shown::Notice(text) => text,
            other => panic!("not a notice: {other:?}"),
        }
    };

    let first = "connected to 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, relayed by 203.0.113.1 (both NATs map by destination)";
    assert_eq!(told(&relayed), first);
    assert_eq!(
        told(&path(NODE)),
        "now direct (LAN, 3 ms), to 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600"
    );
    assert_eq!(
        told(&relayed),
        "now relayed by 203.0.113.1 (both NATs map by destination), to 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600"
    );
    assert!(told(&path("12D3KooWOther")).starts_with("connected to "));
}

#[test]
fn what_came_by_several_paths_is_listed_by_each() {
    let relayed =
        PathInfo { path: PathClass::Relay, description: "relayed by 203.0.113.1 (34 ms)".to_owned(), ..path(NODE) };
    let from = vec![SourceInfo { path: path(NODE), bytes: 3 << 20 }, SourceInfo { path: relayed, bytes: 1 << 20 }];

    let text = result(&Event::Fetched(Fetched { from, ..fetched() }));

    assert!(text.contains("  from 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, direct (LAN, 3 ms): 3.00 MiB\n"), "{text}");
    assert!(
        text.contains("  from 12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X at 192.0.2.1:4600, relayed by 203.0.113.1 (34 ms): 1.00 MiB\n"),
        "{text}"
    );
}

#[test]
fn a_relay_is_told_with_what_it_gave_or_why_it_gives_nothing() {
    let relay = |took_ms, reason: Option<&str>| TurnInfo {
        server: "turns:relay.example.org:443".to_owned(),
        found: true,
        took_ms,
        reason: reason.map(str::to_owned),
        allocations: 0,
    };
    assert_eq!(turn_text(&relay(None, None)), "turns:relay.example.org:443 has not been asked yet (found)");
    assert_eq!(turn_text(&relay(Some(12), None)), "turns:relay.example.org:443 gave an address after 12 ms (found)");
    let failed = turn_text(&relay(Some(12), Some("wrong user name or password\u{1b}[2J")));
    assert!(
        failed.starts_with("turns:relay.example.org:443: wrong user name or password") && !failed.contains('\u{1b}')
    );
}

#[test]
fn what_a_version_changes_is_told_in_words() {
    let counts = ChangeCounts { added: 1, replaced: 2, gone: 1, removed: 0, kept: 3 };
    let compared = Compared {
        hash: ContentHash::EMPTY,
        format: ContentFormat::Collection,
        path: "/out/tree".into(),
        size: Some(2000),
        files: 12,
        missing_bytes: Some(100),
        changes: counts,
    };
    assert_eq!(
        result(&Event::Compared(compared.clone())),
        "Would fetch /out/tree: folder, 12 files, 1.95 KiB\n  2 files to replace, 1 file to add\n  at most 100 bytes to fetch\n  \
         3 files of yours are in the way; --overwrite replaces what is there\n  \
         1 file is not in it any more; --mirror removes what nobody has changed\n"
    );
    let nothing = Compared { changes: ChangeCounts::default(), missing_bytes: Some(0), ..compared };
    assert_eq!(result(&Event::Compared(nothing)), "Nothing would change in /out/tree: folder, 12 files, 1.95 KiB\n");
    let change = ChangeInfo { path: "a\x1b[2J".to_owned(), change: ChangeKind::Kept };
    let Shown::Notice(line) = render(&Event::Change(change), &context()) else { panic!() };
    assert!(line.ends_with("kept, as it is not what a fetch put there") && !line.contains('\x1b'), "{line}");
}
