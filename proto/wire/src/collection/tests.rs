use proptest::prelude::*;

use super::*;

fn hash(content: &str) -> ContentHash {
    ContentHash::of(content.as_bytes())
}

fn file(path: &str) -> ManifestEntry {
    ManifestEntry { path: SafePath::new(path).unwrap(), size: path.len() as u64, hash: hash(path), executable: false }
}

fn files(paths: &[&str]) -> Result<Manifest, ManifestError> {
    Manifest::from_entries(paths.iter().map(|path| file(path)).collect())
}

/// An encoding that holds no rules at all.
fn hostile(entries: &[(&str, u64, ContentHash)]) -> Vec<u8> {
    let raw: Vec<_> =
        entries.iter().map(|&(path, size, hash)| RawEntryRef { path, size, hash, executable: false }).collect();
    [&MAGIC[..], &codec::encode(&raw)].concat()
}

fn decode_paths(paths: &[&str]) -> Result<Manifest, ManifestError> {
    Manifest::decode(&hostile(&paths.iter().map(|path| (*path, 1, hash("x"))).collect::<Vec<_>>()))
}

#[test]
fn entries_are_sorted_by_the_bytes_of_their_paths_and_round_trip() {
    let manifest = files(&["b", "a/c", "a.txt", "é", "B2"]).unwrap();
    let order: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(order, ["B2", "a.txt", "a/c", "b", "é"]);
    assert_eq!(manifest.total_size(), 2 + 5 + 3 + 1 + 2);
    let bytes = manifest.encode();
    assert_eq!(bytes.len(), manifest.encoded_len());
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
}

#[test]
fn an_empty_folder_is_a_collection() {
    let manifest = files(&[]).unwrap();
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
}

#[test]
fn hostile_paths_are_refused_with_their_place() {
    for path in [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "C:/x",
        "C:\\x",
        "\\\\server\\x",
        "COM1",
        "a/nul.txt",
        "x\u{1b}[2J",
        "x\ny",
        "cod\u{202e}gpj.exe",
        "x\0y",
        "",
        "a//b",
        "e\u{301}",
        &"x".repeat(5000),
    ] {
        let refused = decode_paths(&["!", path]);
        assert!(matches!(&refused, Err(ManifestError::Path { index: 1, path: got, .. }) if got == path), "{refused:?}");
    }
}

#[test]
fn unsorted_and_duplicate_paths_are_refused() {
    assert!(matches!(decode_paths(&["b", "a"]), Err(ManifestError::Unsorted { path }) if path.as_str() == "a"));
    assert!(matches!(decode_paths(&["a", "a"]), Err(ManifestError::Duplicate { path }) if path.as_str() == "a"));
    assert!(matches!(files(&["a", "a"]), Err(ManifestError::Duplicate { .. })));
}

#[test]
fn names_that_fold_to_one_are_refused_at_every_level() {
    for paths in [
        &["README", "readme"][..],
        &["a/X", "a/x"],
        &["A/x", "a/y"],
        &["d/A/x", "d/a/y"],
        &["ﬁle", "file"],
        &["STRASSE", "straße"],
        &["É", "é"],
        &["A", "a/x"],
        &["a\u{200d}b", "ab"],
    ] {
        assert!(matches!(files(paths), Err(ManifestError::Clash { .. })), "{paths:?}: {:?}", files(paths));
    }
    // Alike only across the borders of components.
    for paths in [&["a/bc", "ab/c"][..], &["℀", "A/c"], &["x/a", "y/A"], &["a.b", "a/b"]] {
        assert!(files(paths).is_ok(), "{paths:?}: {:?}", files(paths));
    }
}

#[test]
fn a_file_that_is_a_folder_too_is_refused_however_far_apart_they_are() {
    for paths in [&["a", "a/b"][..], &["a", "a!", "a.x", "a/b/c"], &["x/y", "x/y/z"]] {
        assert!(matches!(files(paths), Err(ManifestError::FileAndFolder { .. })), "{paths:?}: {:?}", files(paths));
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let one = hash("x");
    let refused = |entries: &[(&str, u64, ContentHash)]| Manifest::decode(&hostile(entries)).unwrap_err();
    assert!(matches!(refused(&[("a", 0, one)]), ManifestError::Emptiness { size: 0, .. }));
    assert!(matches!(refused(&[("a", 1, ContentHash::EMPTY)]), ManifestError::Emptiness { size: 1, .. }));
    assert!(matches!(refused(&[("a", 1, one), ("b", 2, one)]), ManifestError::TwoSizes { expected: 1, got: 2, .. }));
    for size in [MAX_BLOB_SIZE + 1, u64::MAX] {
        assert!(matches!(refused(&[("a", size, one)]), ManifestError::FileTooLarge { .. }));
    }
    let paths: Vec<_> = (0..65).map(|at| format!("{at:02}")).collect();
    let many: Vec<_> = paths.iter().map(|path| (path.as_str(), MAX_BLOB_SIZE, one)).collect();
    assert_eq!(refused(&many), ManifestError::TotalTooLarge);
    assert!(Manifest::decode(&hostile(&many[..64])).is_ok());
}

#[test]
fn counts_and_lengths_far_beyond_the_bytes_are_refused_without_memory_for_them() {
    for count in [1, 1 << 20, 1 << 40, u64::MAX] {
        let bytes = [&MAGIC[..], &count.to_le_bytes()].concat();
        assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Codec(_))), "{count}");
        let long_path = [&MAGIC[..], &1_u64.to_le_bytes(), &count.to_le_bytes(), b"xx"].concat();
        assert!(matches!(Manifest::decode(&long_path), Err(ManifestError::Codec(_))), "{count}");
    }
}

#[test]
fn what_is_not_a_manifest_is_refused() {
    let bytes = files(&["a"]).unwrap().encode();
    assert_eq!(Manifest::decode(b""), Err(ManifestError::Magic));
    assert_eq!(Manifest::decode(&bytes[1..]), Err(ManifestError::Magic));
    for end in MAGIC.len()..bytes.len() {
        assert!(matches!(Manifest::decode(&bytes[..end]), Err(ManifestError::Codec(_))));
    }
    let extra = CodecError::TrailingBytes { extra: 1 };
    assert_eq!(Manifest::decode(&[&bytes[..], &[0]].concat()), Err(ManifestError::Codec(extra)));
    let too_long = Manifest::decode(&vec![0; MAX_MANIFEST_LEN + 1]);
    assert!(matches!(too_long, Err(ManifestError::Codec(CodecError::TooLong { .. }))));
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let path = SafePath::new("a").unwrap();
    let entry = ManifestEntry { path, size: 0, hash: ContentHash::EMPTY, executable: false };
    let refused = Manifest::from_entries(vec![entry; MAX_ENTRIES + 1]);
    assert_eq!(refused, Err(ManifestError::TooManyEntries { got: MAX_ENTRIES + 1 }));
}

proptest! {
    #[test]
    fn any_bytes_give_an_error_or_the_one_manifest_with_that_encoding(
        paths in prop::collection::vec("[a-cA-C./é]{0,5}", 0..4),
        sizes in prop::collection::vec(0..2_u64, 4),
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let entries: Vec<_> = paths
            .iter()
            .zip(&sizes)
            .map(|(path, &size)| (path.as_str(), size, if size == 0 { ContentHash::EMPTY } else { hash("x") }))
            .collect();
        let mut bytes = hostile(&entries);
        if let Some((at, byte)) = flip {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn manifests_round_trip(paths in prop::collection::btree_set("[a-c]{1,3}(/[d-f]{1,2}){0,2}", 0..12)) {
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        if let Ok(manifest) = files(&paths) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}

#[test]
fn a_path_has_at_most_64_components_and_a_longer_one_is_refused() {
    let deep = |components: usize| vec!["d"; components].join("/");
    assert!(decode_paths(&[&deep(MAX_DEPTH)]).is_ok());
    let refused = decode_paths(&["a", &deep(MAX_DEPTH + 1)]);
    assert!(matches!(&refused, Err(ManifestError::TooDeep { path }) if path.as_str() == deep(65)), "{refused:?}");
    assert!(matches!(files(&[&deep(2048)]), Err(ManifestError::TooDeep { .. })), "nor can one be shared");
}

#[test]
fn folders_are_counted_once_each_and_a_million_and_one_are_refused() {
    // Each entry makes folders of its own, up to the greatest depth.
    let entry = |number: usize, folders: usize| format!("{number:06}{}/f", "/d".repeat(folders - 1));
    let whole = MAX_FOLDERS / (MAX_DEPTH - 1);
    let rest = MAX_FOLDERS % (MAX_DEPTH - 1);
    let mut paths: Vec<String> = (0..whole).map(|number| entry(number, MAX_DEPTH - 1)).collect();
    paths.push(entry(whole, rest));
    paths.push(entry(whole, rest) + "2");
    let decoded = |paths: &[String]| decode_paths(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(decoded(&paths).is_ok());
    paths.push(entry(whole + 1, 1));
    assert_eq!(decoded(&paths).unwrap_err(), ManifestError::TooManyFolders);
}

proptest! {
    #[test]
    fn names_clash_where_their_folded_paths_do(
        paths in proptest::collection::btree_set("[aAbß]{1,2}(/[aAbB]{1,2}){0,3}", 1..12),
    ) {
        let folded = |path: &str| path.split('/').map(fold_key).collect::<Vec<_>>().join("/");
        // Every path, and every folder on the way to it, by its folded form.
        let mut known = HashMap::new();
        let mut is_fine = true;
        for path in &paths {
            for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
                let name = (&path[..end], end == path.len());
                let first = *known.entry(folded(name.0)).or_insert(name);
                is_fine &= first == name;
            }
        }
        let manifest = files(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(manifest.is_ok(), is_fine, "{:?}", manifest);
    }
}
