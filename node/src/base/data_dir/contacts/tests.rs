use keyferry_proto::identity::NodeSecret;

use super::*;

fn node(seed: u8) -> NodeKey {
    NodeSecret::from_bytes(&[seed; 32]).public()
}

fn names(file: &ContactsFile) -> Vec<String> {
    file.read().unwrap().iter().map(|contact| contact.name.to_string()).collect()
}

#[test]
fn contacts_are_added_renamed_listed_and_removed_by_key_or_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    assert!(names(&file).is_empty());
    file.add(node(1), Some("Ada")).unwrap();
    file.add(node(2), Some("Grace Hopper")).unwrap();
    let unnamed = file.add(node(3), None).unwrap();
    assert_eq!(names(&file), ["Ada", "Grace Hopper", unnamed.name.as_str()]);
    assert!(node(3).to_string().ends_with(unnamed.name.as_str()));
    file.add(node(1), Some("Ada Lovelace")).unwrap();
    let list = file.read().unwrap();
    assert_eq!(list.name_of(&node(1)).map(ContactName::as_str), Some("Ada Lovelace"));
    assert_eq!(list.node_of("Grace Hopper"), Some(node(2)));
    assert_eq!(file.remove("Grace Hopper").unwrap().node, node(2));
    assert_eq!(file.remove(&node(3).to_string()).unwrap().node, node(3));
    assert_eq!(names(&file), ["Ada Lovelace"]);
    assert!(matches!(file.remove("Grace Hopper"), Err(ContactsError::NoSuchContact { .. })));
}

#[test]
fn a_name_belongs_to_one_contact() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    file.add(node(1), Some("Ada")).unwrap();
    let taken = file.add(node(2), Some("Ada"));
    assert!(matches!(taken, Err(ContactsError::NameTaken { node: owner, .. }) if owner == node(1)));
    for wrong in ["", " Ada", "a\nb", "\u{1b}[2J", &"a".repeat(129)] {
        assert!(matches!(file.add(node(2), Some(wrong)), Err(ContactsError::Name(_))), "{wrong:?}");
    }
    assert_eq!(names(&file), ["Ada"]);
}

#[test]
fn notes_and_empty_lines_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    let written = format!("# friends\n\n{} Ada\n", node(1));
    std::fs::write(file.path(), &written).unwrap();
    file.add(node(2), Some("Grace")).unwrap();
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), format!("{written}{} Grace\n", node(2)));
}

#[test]
fn a_bad_line_is_told_with_its_number_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    let ada = format!("{} Ada", node(1));
    for (text, wrong_line) in [
        (format!("{ada}\nnonsense Grace\n"), 2),
        (format!("# note\n\n{}\n", node(2)), 3),
        (format!("{ada}\n{} Grace\n", node(1)), 2),
        (format!("{ada}\n{} Ada\n", node(2)), 2),
        (format!("{ada}\n{} a\u{7}\n", node(2)), 2),
    ] {
        std::fs::write(file.path(), &text).unwrap();
        let error = file.read().unwrap_err();
        assert!(matches!(error, ContactsError::Line { line, .. } if line == wrong_line), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("line {wrong_line} of ")), "{error}");
        assert!(file.add(node(3), None).is_err());
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
    }
}

#[test]
fn what_is_no_text_or_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    std::fs::write(file.path(), [0xff, 0xfe]).unwrap();
    assert!(matches!(file.read(), Err(ContactsError::File { .. })));
    std::fs::write(file.path(), "#".repeat(MAX_FILE_LEN as usize + 1)).unwrap();
    assert!(matches!(file.read(), Err(ContactsError::File { .. })));
}

#[test]
fn two_who_add_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let file = file.clone();
            scope.spawn(move || file.add(node(seed), None).unwrap());
        }
    });
    assert_eq!(names(&file).len(), 8);
}
