use proptest::prelude::*;

use super::*;

#[test]
fn ordinary_names_of_every_script_are_taken() {
    for good in [
        "a",
        "a/b/c.txt",
        ".hidden",
        "...and more",
        "cont/ent",
        "console",
        "com10",
        "COM",
        "lpt.d",
        "nulls.txt",
        "a b",
        " leading",
        "What? <x> \"y\" | *",
        "日本語/ファイル.txt",
        "straße",
        "é",
        "👩‍👩‍👧 ❤️.png",
        "می‌خواهم",
        "-rf",
        "~",
    ] {
        assert_eq!(SafePath::new(good).map(|path| path.to_string()), Ok(good.to_owned()));
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let refused = |path: &str| SafePath::new(path).unwrap_err();
    assert_eq!(refused(""), PathError::Empty);
    assert_eq!(refused("/etc/passwd"), PathError::Absolute);
    assert_eq!(refused("//server/share"), PathError::Absolute);
    for path in ["..", "../x", "a/../b", "a/..", ".", "./a", "a/./b"] {
        assert!(matches!(refused(path), PathError::Traversal { .. }), "{path}");
    }
    for path in ["a//b", "a/"] {
        assert_eq!(refused(path), PathError::EmptyComponent, "{path}");
    }
    for path in ["C:", "C:x", "C:/x", "file.txt:stream", "a/b:c"] {
        assert_eq!(refused(path), PathError::Character { found: ':' }, "{path}");
    }
    for path in ["\\\\server\\share", "..\\x", "a\\b", "\\\\?\\C"] {
        assert_eq!(refused(path), PathError::Character { found: '\\' }, "{path}");
    }
}

#[test]
fn names_that_windows_reserves_are_refused_in_any_case_and_with_any_extension() {
    for name in [
        "CON",
        "con",
        "Prn",
        "AUX",
        "nul",
        "NUL.txt",
        "nul.tar.gz",
        "COM1",
        "com9.log",
        "COM0",
        "LPT1",
        "lpt³.x",
        "COM¹",
        "com²",
        "CONIN$",
        "conout$",
        "CLOCK$",
        "nul .txt",
        "con . x",
    ] {
        for path in [name.to_owned(), format!("a/{name}"), format!("{name}/b")] {
            assert!(matches!(SafePath::new(&path), Err(PathError::Reserved { .. })), "{path}");
        }
    }
}

#[test]
fn endings_that_windows_drops_are_refused() {
    for path in ["a.", "a ", "a./b", "b/ ", "..."] {
        assert!(matches!(SafePath::new(path), Err(PathError::TrailingDotOrSpace { .. })), "{path}");
    }
}

#[test]
fn characters_that_control_hide_or_turn_around_are_refused() {
    for found in [
        '\0',
        '\u{1}',
        '\t',
        '\n',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{9f}',
        '\u{61c}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{e0041}',
    ] {
        let path = format!("a{found}b");
        assert_eq!(SafePath::new(path), Err(PathError::Character { found }), "{found:?}");
    }
}

#[test]
fn only_the_composed_form_is_taken_and_the_other_can_be_brought_into_it() {
    let decomposed = "e\u{301}";
    assert_eq!(SafePath::new(decomposed), Err(PathError::NotNormalized));
    assert_eq!(SafePath::normalized(decomposed).map(|path| path.to_string()), Ok("é".to_owned()));
}

#[test]
fn lengths_are_limited_in_bytes() {
    let component = "é".repeat(127) + "x";
    assert_eq!(component.len(), MAX_COMPONENT_LEN);
    assert!(SafePath::new(component.as_str()).is_ok());
    assert_eq!(SafePath::new(component + "x"), Err(PathError::ComponentTooLong { got: 256 }));
    let longest = "x/".repeat(MAX_PATH_LEN / 2 - 1) + "xx";
    assert!(SafePath::new(longest.as_str()).is_ok());
    assert_eq!(SafePath::new(longest + "x"), Err(PathError::TooLong { got: MAX_PATH_LEN + 1 }));
}

#[test]
fn names_that_are_one_somewhere_have_one_key() {
    for (a, b) in [
        ("README", "readme"),
        ("STRASSE", "straße"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("ﬁle", "file"),
        ("Ａ", "a"),
        ("K", "k"),
        ("a\u{200d}b", "ab"),
        ("❤\u{fe0f}", "❤"),
        ("x²", "x2"),
        ("é", "É"),
    ] {
        assert_eq!(fold_key(a), fold_key(b), "{a} {b}");
    }
    assert_ne!(fold_key("a"), fold_key("b"));
    assert_ne!(fold_key("e"), fold_key("é"));
}

#[test]
fn parts_are_what_they_are_called() {
    let path = SafePath::new("a/b/c").unwrap();
    assert_eq!((path.parent(), path.file_name()), (Some("a/b"), "c"));
    let path = SafePath::new("c").unwrap();
    assert_eq!((path.parent(), path.file_name()), (None, "c"));
}

proptest! {
    #[test]
    fn any_text_is_refused_or_stays_below_the_folder_it_is_put_in(
        text in "(\\PC|[./\\\\: \u{301}é]|\u{202e}|\n|nul|com1){0,12}",
    ) {
        if let Ok(path) = SafePath::new(text.as_str()) {
            prop_assert_eq!(path.as_str(), text.as_str());
            let names: Vec<_> = std::path::Path::new(path.as_str()).components().collect();
            prop_assert!(names.iter().all(|name| matches!(name, std::path::Component::Normal(_))));
            prop_assert_eq!(names.len(), path.components().count());
            prop_assert_eq!(SafePath::normalized(&text), Ok(path));
        }
    }

    #[test]
    fn folding_twice_is_folding_once(text in "\\PC{0,20}") {
        prop_assert_eq!(fold_key(&fold_key(&text)), fold_key(&text));
    }

    #[test]
    fn ascii_folds_as_everything_else_does(text in "[ -~]{0,20}") {
        prop_assert_eq!(fold_key(&format!("{text}é")), fold_key(&text) + "e\u{301}");
    }
}
