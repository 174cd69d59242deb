use super::*;

const NODE: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
const HASH: &str = "3f9a0b1c2d3e4f506172839405a6b7c8d9eafb0c1d2e3f405162738495a6b7c8";
const HINTS: &str = "via=/ip4/192.0.2.1/tcp/4040&via=/ip6/2001:db8::1/tcp/4040";

/// Whether what was pasted is understood as this address.
fn means(pasted: &str, expected: &str) {
    match address(pasted) {
        Ok(found) => assert_eq!(found.to_string(), expected, "{pasted:?}"),
        Err(failure) => panic!("{pasted:?}: {failure:?}"),
    }
}

/// Why what was pasted is not understood, with what to do.
fn refused(pasted: &str) -> String {
    let failure = address(pasted).expect_err(pasted);
    assert_eq!((failure.kind, failure.message.lines().count()), (FailureKind::Usage, 1), "{failure:?}");
    let advice = failure.advice.unwrap_or_default();
    assert!(!advice.contains("--name"), "get has no --name: {advice}");
    format!("{} | {advice}", failure.message)
}

#[test]
fn what_stands_around_an_address_is_left_out() {
    let exact = format!("keyferry:{NODE}/film.mkv");
    for pasted in [
        format!("{exact} "),
        format!("\t{exact}\n"),
        format!("{exact}\r\n"),
        format!("{exact}."),
        format!("{exact},"),
        format!("{exact}?"),
        format!("{exact})."),
        format!("<{exact}>"),
        format!("<{exact}|film.mkv>"),
        format!("\"{exact}\""),
        format!("'{exact}',"),
        format!("„{exact}“"),
        format!("“{exact}.”"),
        format!("`{exact}`"),
        format!("**{exact}**"),
        format!("[film]({exact})"),
        format!("[{exact}]({exact})"),
        format!("<a href=\"{exact}\">{exact}</a>"),
        format!("Ada, 12:03: here it is: {exact}!"),
        format!("{exact}。"),
        format!("\u{feff}\u{200b}{exact}\u{200b}"),
        format!("\u{2068}{exact}\u{2069}"),
    ] {
        means(&pasted, &exact);
    }
    let underlined = format!("keyferry:{NODE}/my_film_1");
    means(&format!("_{underlined}_"), &underlined);
}

#[test]
fn other_spellings_of_an_address_are_understood() {
    let exact = format!("keyferry:{NODE}/a%20b");
    for pasted in [
        format!("KEYFERRY:{NODE}/a%20b"),
        format!("Keyferry://{NODE}/a%20b"),
        format!("keyferry:///{NODE}/a%20b"),
        format!("keyferry： {NODE}／a%20b"),
        format!("keyferry:{NODE}/a b"),
        format!("keyferry:{NODE}/%61%20b"),
        format!("{NODE}/a%20b"),
        format!("keyferry%3A{NODE}%2Fa%2520b"),
        format!("https://example.org/open?link=keyferry%3a{NODE}%2fa%2520b&from=mail"),
    ] {
        means(&pasted, &exact);
    }
    means(&format!("keyferry:{NODE}/u\u{308}"), &format!("keyferry:{NODE}/%C3%BC"));
    means(&format!("keyferry:{NODE}/photo (1)"), &format!("keyferry:{NODE}/photo%20%281%29"));
    for pasted in
        [HASH.to_owned(), HASH.to_uppercase(), format!("KEYFERRY:{}", HASH.to_uppercase()), format!("<{HASH}>")]
    {
        means(&pasted, &format!("keyferry:{HASH}"));
    }
    // What is exact stays what it is, whatever it looks like.
    for exact in [format!("keyferry:{NODE}/_x_"), format!("keyferry:{NODE}/get"), format!("keyferry:{NODE}")] {
        means(&exact, &exact);
    }
}

#[test]
fn what_mail_does_to_an_address_is_undone() {
    let exact = format!("keyferry:{NODE}/film.mkv?{HINTS}");
    let (start, end) = exact.split_at(40);
    let (long_start, long_end) = exact.split_at(exact.len() - 20);
    for pasted in [
        format!("{start}\n{end}"),
        format!("{start}\r\n  {end}\r\n"),
        format!("{start} \n{end}."),
        format!("> {start}\n> {end}\n>\n> Ada"),
        format!("<{start}\n{end}>"),
        format!("{long_start}\n{long_end}\n\nGreetings, Ada"),
        format!("{start}=\n{end}").replace("via=/", "via=3D/"),
        exact.replace('&', "&amp;"),
        exact.replace("&via", " &via"),
    ] {
        means(&pasted, &exact);
    }
}

#[test]
fn a_whole_line_is_understood_unless_it_has_options() {
    let exact = format!("keyferry:{NODE}/film.mkv?{HINTS}");
    for pasted in [
        format!("keyferry get '{exact}'"),
        format!("$ keyferry get '{exact}'\n"),
        format!("keyferry get {exact}"),
        format!("cargo run --release -- get '{exact}'"),
        format!("  keyferry get '{exact}'\n\nBy its content"),
    ] {
        means(&pasted, &exact);
    }
    means(&format!("keyferry get {NODE}/x"), &format!("keyferry:{NODE}/x"));
    for pasted in [format!("keyferry get '{exact}' -o x"), format!("keyferry get --overwrite {exact}")] {
        assert!(refused(&pasted).contains("beside the address"), "{pasted}");
    }
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let found = address_in_words(&words(&format!("keyferry get {exact}")));
    assert_eq!(found.unwrap().to_string(), exact);
    let failure = address_in_words(&words(&format!("{exact} Downloads"))).unwrap_err();
    assert!(failure.message.contains("\"Downloads\" follows") && failure.advice.unwrap().contains("-o"));
}

#[test]
fn what_has_two_meanings_or_none_is_named() {
    let named = format!("keyferry:{NODE}/film");
    for (pasted, said) in [
        (String::new(), "empty"),
        (" \n".to_owned(), "empty"),
        (format!("{named} keyferry:{HASH}"), "2 different addresses"),
        (format!("here: {named} and have fun"), "where the address ends"),
        (format!("{named}\nhave fun, Ada"), "where the address ends"),
        ("keyferry:12D3KooWPjc…/film".to_owned(), "cut short"),
        ("keyferry:12D3KooWPjc.../film".to_owned(), "cut short"),
        (named.to_uppercase(), "large and small letters"),
        (named.to_lowercase(), "large and small letters"),
        (format!("keyferry:{}/film", &NODE[..51]), "node key"),
        (format!("keyferry:{NODE}/.."), "leads elsewhere"),
        (format!("keyferry:{NODE}/a:b"), "not allowed in names"),
        ("holiday".to_owned(), "begins with \"keyferry:\""),
        ("x".repeat(MAX_PASTED_LEN + 1), "too long"),
    ] {
        let why = refused(&pasted);
        assert!(why.contains(said), "{pasted:?}: {why}");
    }
}

#[test]
fn a_node_is_found_by_its_key_or_an_address_with_one() {
    let key: NodeKey = NODE.parse().unwrap();
    for pasted in
        [format!(" {NODE}\n"), format!("keyferry:{NODE}/film."), format!("<keyferry://{NODE}>"), format!("{NODE}/")]
    {
        assert_eq!(node_key(&pasted), Ok(key), "{pasted:?}");
    }
    assert_eq!(node(&format!("keyferry ls 'keyferry:{NODE}?{HINTS}'")).unwrap().hints.len(), 2);
    assert!(node_key(&format!("keyferry:{HASH}")).unwrap_err().contains("no node"));
}
