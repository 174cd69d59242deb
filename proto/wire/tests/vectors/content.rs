//! The vectors of `docs/vectors`: paths, manifests, frames, messages and groups, as an independent program made them.

use std::fmt::Debug;

use keyferry_proto::{
    catalogue::SignedEntry,
    collection::{
        CollectionEntry, EntryKind, EntryName, FileAttributes, FileEntry, FileTime, FolderAttributes, LinkTarget,
        Manifest,
    },
    frame::FrameDecoder,
    hash::{ContentFormat, ContentHash},
    message::{
        CatalogueReply, ContentHeader, ContentPart, ContentReply, ContentRequest, ControlMessage, Goodbye, Hello,
        ItemStatus, Message, Refusal, Request, ResolveReply,
    },
    path::{SafePath, fold_key},
    transfer::{
        groups::{
            Expect, GROUP_LEN, GroupDecoder, GroupError, GroupSteps, MARK_BYTES, MARK_ZEROS, PARENT_LEN, Step, Verified,
        },
        units::UnitRanges,
    },
};
use serde_json::Value;

use crate::cases::{assert_refused, cases, hex, vectors};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn bytes(value: &Value) -> Vec<u8> {
    hex(text(value))
}

fn hash(value: &Value) -> ContentHash {
    text(value).parse().expect("a hash")
}

fn ranges(value: &Value) -> UnitRanges {
    let pairs = value.as_array().expect("ranges");
    pairs.iter().map(|pair| number(&pair[0])..number(&pair[1])).collect()
}

#[test]
fn paths_are_taken_refused_and_folded_as_written() {
    let vectors = vectors("manifest");
    for path in cases(&vectors, "/safe_paths") {
        assert!(SafePath::new(text(path)).is_ok(), "{path}");
    }
    for case in cases(&vectors, "/unsafe_paths") {
        let got = format!("{:?}", SafePath::new(text(&case["path"])).expect_err(text(&case["path"])));
        assert!(got.starts_with(text(&case["error"])), "{case}: {got}");
    }
    for pair in cases(&vectors, "/same") {
        assert_eq!(fold_key(text(&pair[0])), fold_key(text(&pair[1])));
    }
}

/// The entry that a case describes, whose name and target are at hand.
fn folder_entry<'a>(case: &Value, name: &'a [u8], target: &'a [u8]) -> CollectionEntry<'a> {
    let is = |field: &str| case[field].as_bool().unwrap_or(false);
    let modified = FileTime(case["modified"].as_i64().unwrap_or(0));
    let depth = u8::try_from(number(&case["depth"])).expect("a depth");
    let kind = match text(&case["kind"]) {
        "folder" => EntryKind::Folder(FolderAttributes { modified, private: is("private") }),
        "file" => {
            let attributes = FileAttributes { modified, executable: is("executable"), private: is("private") };
            EntryKind::File(FileEntry { size: number(&case["size"]), hash: hash(&case["hash"]), attributes })
        }
        "link" => EntryKind::Link(LinkTarget::new(target, depth).expect("a link that stays inside")),
        other => panic!("{other}"),
    };
    CollectionEntry { depth, name: EntryName::new(name).expect("a name"), kind }
}

#[test]
fn manifests_have_the_bytes_and_rules_that_are_written() {
    let vectors = vectors("manifest");
    for case in cases(&vectors, "/valid") {
        let list = case["entries"].as_array().expect("entries");
        let target = |entry: &Value| entry["target"].as_str().map(hex).unwrap_or_default();
        let texts: Vec<_> = list.iter().map(|entry| (bytes(&entry["name"]), target(entry))).collect();
        let entries: Vec<_> =
            list.iter().zip(&texts).map(|(case, (name, target))| folder_entry(case, name, target)).collect();
        let root = FolderAttributes {
            modified: FileTime(case["root"]["modified"].as_i64().expect("a time")),
            private: case["root"]["private"].as_bool().expect("a bool"),
        };
        let manifest = Manifest::from_entries(root, entries.clone()).expect("a manifest");
        assert_eq!(manifest.entries().collect::<Vec<_>>(), entries);
        assert_eq!(manifest.total_size(), number(&case["total_size"]));
        assert_eq!(manifest.encode(), bytes(&case["bytes"]));
        assert_eq!(ContentHash::of(&manifest.encode()), hash(&case["hash"]));
        assert_eq!(Manifest::decode(&bytes(&case["bytes"])), Ok(manifest));
    }
    for case in cases(&vectors, "/refused") {
        assert_refused(Manifest::decode(&bytes(&case["bytes"])), case);
    }
}

/// The one field of an enum that is written as `{"Variant": field}`, or the name alone.
fn variant(message: &Value) -> (&str, &Value) {
    match message.as_object().and_then(|object| object.iter().next()) {
        Some((name, field)) => (name, field),
        None => (text(message), message),
    }
}

fn hello(field: &Value) -> Hello {
    Hello {
        version: number(&field["version"]) as u16,
        features: number(&field["features"]),
        agent: text(&field["agent"]).to_owned(),
    }
}

fn refusal(name: &str) -> Refusal {
    match name {
        "NotFound" => Refusal::NotFound,
        "Busy" => Refusal::Busy,
        "Changed" => Refusal::Changed,
        "Policy" => Refusal::Policy,
        "Gone" => Refusal::Gone,
        "Unreadable" => Refusal::Unreadable,
        other => panic!("{other}"),
    }
}

fn entry(field: &Value) -> SignedEntry {
    SignedEntry::from_bytes(bytes(field)).expect("an entry")
}

fn request(message: &Value) -> Request {
    match variant(message) {
        ("Control", field) => Request::Control(hello(field)),
        ("Resolve", name) => Request::Resolve(text(name).parse().expect("a name")),
        ("Catalogue", _) => Request::Catalogue,
        ("Content", field) => {
            let part = match text(&field["part"]) {
                "Groups" => ContentPart::Groups,
                "Root" => ContentPart::Root,
                "Parents" => ContentPart::Parents,
                other => panic!("{other}"),
            };
            Request::Content(ContentRequest { root: hash(&field["root"]), ranges: ranges(&field["ranges"]), part })
        }
        (other, _) => panic!("{other}"),
    }
}

fn control(message: &Value) -> ControlMessage {
    match variant(message) {
        ("Hello", field) => ControlMessage::Hello(hello(field)),
        ("Ping", field) => ControlMessage::Ping(number(field)),
        ("Pong", field) => ControlMessage::Pong(number(field)),
        ("Goodbye", reason) => ControlMessage::Goodbye(match text(reason) {
            "Finished" => Goodbye::Finished,
            "Stopping" => Goodbye::Stopping,
            "Busy" => Goodbye::Busy,
            "Protocol" => Goodbye::Protocol,
            "Idle" => Goodbye::Idle,
            other => panic!("{other}"),
        }),
        (other, _) => panic!("{other}"),
    }
}

fn resolve_reply(message: &Value) -> ResolveReply {
    match variant(message) {
        ("Found", field) => ResolveReply::Found(entry(field)),
        ("NotFound", _) => ResolveReply::NotFound,
        ("Refused", why) => ResolveReply::Refused(refusal(text(why))),
        (other, _) => panic!("{other}"),
    }
}

fn catalogue_reply(message: &Value) -> CatalogueReply {
    match variant(message) {
        ("Entry", field) => CatalogueReply::Entry(entry(field)),
        ("End", count) => CatalogueReply::End { count: number(count) },
        ("Refused", name) => CatalogueReply::Refused(refusal(text(name))),
        (other, _) => panic!("{other}"),
    }
}

fn content_reply(message: &Value) -> ContentReply {
    match variant(message) {
        ("Header", field) => {
            let format = if field["format"] == "collection" { ContentFormat::Collection } else { ContentFormat::Blob };
            ContentReply::Header(ContentHeader { format, size: number(&field["size"]) })
        }
        ("Refused", name) => ContentReply::Refused(refusal(text(name))),
        (other, _) => panic!("{other}"),
    }
}

fn assert_encoding<M: Message + PartialEq + Debug>(message: M, expected: &[u8]) {
    assert_eq!(message.encode(), expected, "{message:?}");
    assert_eq!(M::decode(expected), Ok(message));
}

#[test]
fn messages_have_the_bytes_that_are_written() {
    for case in cases(&vectors("message"), "/valid") {
        let (message, bytes) = (&case["message"], bytes(&case["bytes"]));
        match text(&case["type"]) {
            "Request" => assert_encoding(request(message), &bytes),
            "ControlMessage" => assert_encoding(control(message), &bytes),
            "ResolveReply" => assert_encoding(resolve_reply(message), &bytes),
            "CatalogueReply" => assert_encoding(catalogue_reply(message), &bytes),
            "ContentReply" => assert_encoding(content_reply(message), &bytes),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn malformed_messages_are_refused_for_the_reason_that_is_written() {
    for case in cases(&vectors("message"), "/refused") {
        let bytes = match case["zeros"].as_u64() {
            Some(zeros) => vec![0; zeros as usize],
            None => bytes(&case["bytes"]),
        };
        match text(&case["type"]) {
            "Request" => assert_refused(Request::decode(&bytes), case),
            "ControlMessage" => assert_refused(ControlMessage::decode(&bytes), case),
            "ResolveReply" => assert_refused(ResolveReply::decode(&bytes), case),
            "CatalogueReply" => assert_refused(CatalogueReply::decode(&bytes), case),
            "ContentReply" => assert_refused(ContentReply::decode(&bytes), case),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn frames_come_out_as_written() {
    for case in cases(&vectors("message"), "/frames") {
        let mut decoder = FrameDecoder::new(number(&case["limit"]) as usize);
        let stream = bytes(&case["stream"]);
        let mut rest = &stream[..];
        let mut bodies = Vec::new();
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            result = decoder.accept(&mut rest).map(|body| bodies.extend(body));
        }
        let expected: Vec<_> = case["bodies"].as_array().expect("bodies").iter().map(bytes).collect();
        assert_eq!(bodies, expected, "{}", case["why"]);
        match result.and_then(|()| decoder.finish()) {
            Ok(()) => assert!(case["error"].is_null(), "{}", case["why"]),
            error => assert_refused(error, case),
        }
    }
}

#[test]
fn status_bytes_are_those_that_are_written() {
    for (byte, name) in vectors("message")["status"].as_object().expect("statuses") {
        let status = ItemStatus::from_byte(byte.parse().expect("a byte"));
        match name.as_str() {
            None => assert!(status.is_err(), "{byte}"),
            Some("Data") => assert_eq!(status, Ok(ItemStatus::Data)),
            Some("Sparse") => assert_eq!(status, Ok(ItemStatus::Sparse)),
            Some(name) => assert_eq!(status, Ok(ItemStatus::Refused(refusal(name)))),
        }
    }
}

/// The blob of the vectors: byte i is i modulo 251.
fn blob(size: u64) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

#[test]
fn groups_have_the_encoding_that_is_written() {
    for case in cases(&vectors("groups"), "/valid") {
        let size = number(&case["size"]);
        let (data, outboard, groups) = (blob(size), bytes(&case["outboard"]), ranges(&case["groups"]));
        let mut decoder = GroupDecoder::new(hash(&case["hash"]), size, &groups).expect("a decoder");
        let mut encoded = Vec::new();
        let mut pieces = case["pieces"].as_array().expect("pieces").iter();
        for step in GroupSteps::new(size, &groups).expect("steps") {
            let piece = pieces.next().expect("a piece");
            let start = encoded.len();
            let expected = match step {
                Step::Parent { outboard_offset } => {
                    assert_eq!((&piece["parent"], &piece["len"]), (&outboard_offset.into(), &PARENT_LEN.into()));
                    encoded.extend(&outboard[outboard_offset as usize..][..PARENT_LEN]);
                    Verified::Parent { outboard_offset }
                }
                Step::Leaf { offset, len } => {
                    assert_eq!((&piece["leaf"], &piece["len"]), (&offset.into(), &len.into()));
                    encoded.extend(&data[offset as usize..][..len]);
                    Verified::Leaf { offset, len }
                }
            };
            assert_eq!(decoder.accept(&encoded[start..]), Ok(expected));
        }
        assert_eq!((decoder.expects(), pieces.next()), (None, None));
        assert_eq!(encoded.len() as u64, number(&case["encoded_len"]));
        assert_eq!(ContentHash::of(&encoded), hash(&case["encoded_hash"]));
    }
}

#[test]
fn groups_of_files_with_holes_have_the_encoding_with_marks_that_is_written() {
    for case in cases(&vectors("groups"), "/marked") {
        let size = number(&case["size"]);
        let (mut data, outboard, groups) = (blob(size), bytes(&case["outboard"]), ranges(&case["groups"]));
        for group in case["holes"].as_array().expect("holes") {
            let start = number(group) as usize * GROUP_LEN;
            let end = data.len().min(start + GROUP_LEN);
            data[start..end].fill(0);
        }
        let mut decoder = GroupDecoder::of_marked(hash(&case["hash"]), size, &groups).expect("a decoder");
        let mut encoded = Vec::new();
        for (step, piece) in
            GroupSteps::new(size, &groups).expect("steps").zip(case["pieces"].as_array().expect("pieces"))
        {
            match step {
                Step::Parent { outboard_offset } => {
                    assert_eq!(piece["parent"], outboard_offset);
                    let parent = &outboard[outboard_offset as usize..][..PARENT_LEN];
                    assert_eq!(decoder.accept(parent), Ok(Verified::Parent { outboard_offset }));
                    encoded.extend(parent);
                }
                Step::Leaf { offset, len } => {
                    assert_eq!((&piece["leaf"], decoder.expects()), (&offset.into(), Some(Expect::Mark)));
                    let bytes = &data[offset as usize..][..len];
                    if bytes.iter().all(|byte| *byte == 0) {
                        assert_eq!(decoder.accept(&[MARK_ZEROS]), Ok(Verified::Zeros { offset, len }));
                        encoded.push(MARK_ZEROS);
                    } else {
                        assert_eq!(decoder.accept(&[MARK_BYTES]), Ok(Verified::Marked));
                        assert_eq!(decoder.accept(bytes), Ok(Verified::Leaf { offset, len }));
                        encoded.push(MARK_BYTES);
                        encoded.extend(bytes);
                    }
                }
            }
        }
        assert_eq!(decoder.expects(), None);
        assert_eq!(encoded.len() as u64, number(&case["encoded_len"]));
        assert_eq!(ContentHash::of(&encoded), hash(&case["encoded_hash"]));
    }
}

/// Feeds a stream with zeros behind it; how many pieces were taken, and why the next was refused.
fn refuse(decoder: &mut GroupDecoder, mut stream: &[u8]) -> (u64, Option<GroupError>) {
    let mut accepted = 0;
    while let Some(expect) = decoder.expects() {
        let (taken, rest) = stream.split_at(stream.len().min(expect.len()));
        stream = rest;
        let mut piece = taken.to_vec();
        piece.resize(expect.len(), 0);
        match decoder.accept(&piece) {
            Ok(Verified::Parent { .. }) => assert_eq!(expect, Expect::Parent),
            Ok(Verified::Leaf { offset, len }) => assert_eq!(expect, Expect::Leaf { offset, len }),
            Ok(Verified::Zeros { .. } | Verified::Marked) => panic!("leaves have no marks here"),
            Err(error) => return (accepted, Some(error)),
        }
        accepted += 1;
    }
    (accepted, None)
}

#[test]
fn changed_pieces_and_wrong_sizes_are_refused_where_it_is_written() {
    let vectors = vectors("groups");
    let everything = cases(&vectors, "/valid").iter().filter(|case| case["groups"][0][1] == u64::MAX);
    let outboards: Vec<_> = everything.map(|case| (number(&case["size"]), bytes(&case["outboard"]))).collect();
    for case in cases(&vectors, "/refused") {
        let size = number(&case["size"]);
        let (data, outboard) = (blob(size), &outboards.iter().find(|(of, _)| *of == size).expect("an outboard").1);
        let mut stream = Vec::new();
        for step in GroupSteps::new(size, &UnitRanges::all()).expect("steps") {
            match step {
                Step::Parent { outboard_offset } => stream.extend(&outboard[outboard_offset as usize..][..PARENT_LEN]),
                Step::Leaf { offset, len } => stream.extend(&data[offset as usize..][..len]),
            }
        }
        if let Some(at) = case["at"].as_u64() {
            stream[at as usize] ^= number(&case["xor"]) as u8;
        }
        let result = GroupDecoder::new(hash(&case["hash"]), number(&case["claimed"]), &UnitRanges::all());
        let (accepted, error) = match result {
            Ok(mut decoder) => refuse(&mut decoder, &stream),
            Err(error) => (0, Some(error)),
        };
        assert_eq!(accepted, number(&case["accepted"]), "{case}");
        assert_refused(error.map_or(Ok(()), Err), case);
    }
}
