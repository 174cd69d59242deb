//! Addresses and keys as people paste them, with what mail, chat and web pages put around and into them.
//!
//! ```text
//! "keyferry:NODE/NAME",  <keyferry:…>  [film](keyferry:…)  `keyferry:…`     what stands around it
//! KEYFERRY:…  keyferry://…  keyferry%3ANODE%2FNAME  NODE/NAME  HASH           other ways to write it
//! keyferry:12D3Koo⏎> WVq…  …?via=3D/ip4/…&amp;via=…                           what was done to it on the way
//! keyferry get 'keyferry:…'                                                   a whole line
//! ```
//! What has one meaning is understood. Of what has two, or none, the failure says which.
//!
//! What it is not: the one exact form of an address ([`keyferry::Address`]), which is all that programs speak among themselves.

use std::borrow::Cow;

use keyferry::{
    Address, NodeAddress, NodeKey,
    control::{Failure, FailureKind},
};
use percent_encoding::percent_decode_str;
use unicode_normalization::UnicodeNormalization as _;

const SCHEME: &str = "keyferry:";
/// The scheme in a text that was percent-encoded as a whole, as the parameter of a link is.
const ENCODED_SCHEME: &str = "keyferry%3a";
/// What stands before an address in a line that was typed or copied, beside quotes and brackets.
const COMMAND_WORDS: [&str; 4] = ["$", "keyferry", "get", "ls"];
/// What may be pasted, in bytes: some addresses of the greatest length. A whole mail is no address.
const MAX_PASTED_LEN: usize = 64 * 1024;

/// Finds the address in what was pasted.
///
/// # Errors
///
/// What is wrong with it, if it has no meaning, or more than one.
pub fn address(pasted: &str) -> Result<Address, Failure> {
    if let Ok(exact) = pasted.parse() {
        return Ok(exact);
    }
    if pasted.len() > MAX_PASTED_LEN {
        return Err(Failure::usage("that is too long to look for an address in it").try_to("the address alone"));
    }
    let text = undo_transport(pasted);
    let mut found: Vec<Address> = Vec::new();
    for occurrence in occurrences(&text) {
        let address = occurrence.read()?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 if text.trim().is_empty() => {
            Err(Failure::usage("the address is empty").try_to("what `keyferry share` prints"))
        }
        // Nothing like one is in it: why the text itself is none.
        0 => bare(&text),
        many => Err(Failure::usage(format!("there are {many} different addresses in it")).try_to("one of them alone")),
    }
}

/// Finds the node in what was pasted: a key, or an address with one.
///
/// # Errors
///
/// As [`address`], and if the address names no node.
pub fn node(pasted: &str) -> Result<NodeAddress, Failure> {
    Ok(address(pasted)?.to_string().parse::<NodeAddress>()?)
}

/// Finds the address in the words after `get`, which may be a whole line that was pasted behind them.
///
/// # Errors
///
/// As [`address`], and if there are other words beside it.
pub fn address_in_words(words: &[String]) -> Result<Address, Failure> {
    let rest = words.iter().position(|word| !is_command_word(word)).map_or(words, |first| &words[first..]);
    match rest {
        [] => address(""),
        [one] => address(one),
        [_, more @ ..] => Err(Failure::usage(format!("{:?} follows the address", more.join(" ")))
            .try_to("one address at a time, in quotes if it has spaces; where to put it goes behind -o")),
    }
}

/// Finds the key of a node in what was pasted, for the command line.
///
/// # Errors
///
/// In words, what is wrong with it.
pub fn node_key(pasted: &str) -> Result<NodeKey, String> {
    node(pasted).map(|found| found.node).map_err(|failure| failure.message)
}

/// One address in a text: what follows its scheme, up to the next one, and what stands before it.
struct Occurrence<'a> {
    before: &'a str,
    rest: &'a str,
    is_encoded: bool,
    is_last: bool,
}

/// All places in a text at which an address begins.
fn occurrences(text: &str) -> Vec<Occurrence<'_>> {
    let lower = text.to_ascii_lowercase();
    let mut starts: Vec<(usize, &str)> = [SCHEME, ENCODED_SCHEME]
        .into_iter()
        .flat_map(|scheme| lower.match_indices(scheme))
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric()))
        .collect();
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let place = |((at, scheme), end): (&(usize, &str), usize)| {
        let (before, rest) = (&text[..*at], &text[at + scheme.len()..end]);
        Occurrence { before, rest, is_encoded: *scheme == ENCODED_SCHEME, is_last: end == text.len() }
    };
    starts.iter().zip(ends).map(place).collect()
}

impl Occurrence<'_> {
    fn read(&self) -> Result<Address, Failure> {
        if self.is_encoded {
            return self.read_encoded();
        }
        let closed = self.closed();
        let rest = match closed {
            Some(closed) => closed,
            // What follows is markup.
            None if self.is_last => self.rest.split('<').next().unwrap_or_default(),
            None => self.rest.trim_start().split(|c| !is_of_address(c)).next().unwrap_or_default(),
        };
        self.refuse_options()?;
        let rest = rest.trim_start().trim_start_matches('/');
        let is_alone = closed.is_some() || self.before.split_whitespace().all(is_command_word);
        let joined = join_lines(rest)?;
        let text = without_gaps(trim_end(&joined));
        let name = text.split_once('/').map_or("", |(_, name)| name);
        if let Some((first, _)) = name.split_once(char::is_whitespace)
            && !is_alone
        {
            let key = &text[..text.len() - name.len()];
            return Err(unclear(&format!("{SCHEME}{key}{first}"), &format!("{SCHEME}{text}")));
        }
        parse(&text)
    }

    /// What is between the mark that stands before the address and the one that closes it.
    fn closed(&self) -> Option<&str> {
        let opener = self.before.chars().next_back()?;
        let end = match closer(opener)? {
            // An address may have it as well.
            '_' => self.rest.trim_end_matches(|c| c != '_').len().checked_sub(1)?,
            closer => self.rest.find(closer)?,
        };
        let inside = &self.rest[..end];
        // Chat programs write <ADDRESS|what they show>.
        Some(if opener == '<' { inside.split('|').next().unwrap_or_default() } else { inside })
    }

    /// The options of a whole line would be lost without a word.
    fn refuse_options(&self) -> Result<(), Failure> {
        let mut words = self.before.split_whitespace();
        if !words.any(|word| word == "get" || word == "ls") {
            return Ok(());
        }
        let is_option = |word: &&str| word.trim_start_matches('-').len() < word.len() && *word != "--";
        match words.chain(self.rest.split_whitespace().skip(1)).find(is_option) {
            None => Ok(()),
            Some(option) => Err(Failure::usage(format!("the line has {option} beside the address"))
                .try_to("the line as it is, without quotes around all of it, or the address alone")),
        }
    }

    fn read_encoded(&self) -> Result<Address, Failure> {
        let of_component = |c: char| c.is_ascii_alphanumeric() || "%-._~".contains(c);
        let encoded = self.rest.split(|c| !of_component(c)).next().unwrap_or_default();
        let decoded = percent_decode_str(encoded).decode_utf8();
        let decoded = decoded.map_err(|_| Failure::usage("the percent-encoding of the address does not give UTF-8"))?;
        parse(trim_end(decoded.trim_start_matches('/')))
    }
}

/// The address in a text without any scheme, which begins with the key of a node or with a hash.
fn bare(text: &str) -> Result<Address, Failure> {
    let mut text = text.trim_start_matches(|c: char| c.is_whitespace() || closer(c).is_some());
    while let Some((word, rest)) = text.split_once(char::is_whitespace)
        && is_command_word(word)
    {
        text = rest.trim_start_matches(|c: char| c.is_whitespace() || closer(c).is_some());
    }
    let lines = join_lines(text)?;
    let run = lines.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    match looks_like_hash(run) || looks_like_key(run) {
        true => parse(&without_gaps(trim_end(&lines))),
        false => Ok(text.parse::<Address>()?),
    }
}

/// Parses what follows the scheme, as it is or in another spelling of the same; without what ends a sentence if it must be.
fn parse(rest: &str) -> Result<Address, Failure> {
    let rest = with_small_hashes(rest);
    let mut rest = rest.as_str();
    loop {
        let text = format!("{SCHEME}{rest}");
        let error =
            match understand(&text).or_else(|error| understand(&text.nfc().collect::<String>()).map_err(|_| error)) {
                Ok(address) => return Ok(address),
                Err(error) => error,
            };
        match rest.strip_suffix(['.', '?', ':', '/', '&']) {
            // More dots than one are no end of a sentence.
            Some(shorter) if !shorter.is_empty() && !shorter.ends_with(['.', '/']) => rest = trim_end(shorter),
            _ => return Err(explain(rest, error)),
        }
    }
}

/// With the letters of a hash as they are written: small; and without the slash that shells put behind the name of a folder.
fn with_small_hashes(rest: &str) -> String {
    let (target, hints) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let target = target.strip_suffix('/').filter(|_| !hints.is_empty()).unwrap_or(target);
    let parts: Vec<String> = target
        .split('/')
        .map(|part| if looks_like_hash(part) { part.to_ascii_lowercase() } else { part.to_owned() })
        .collect();
    format!("{}{hints}", parts.join("/"))
}

/// Parses an address, also in another spelling than the exact one.
fn understand(text: &str) -> Result<Address, keyferry::AddressError> {
    match text.parse() {
        Err(keyferry::AddressError::NotCanonical { expected }) => expected.parse(),
        parsed => parsed,
    }
}

/// Says why it is no address, and what may have happened to it.
fn explain(rest: &str, error: keyferry::AddressError) -> Failure {
    let key = rest.split(['/', '?']).next().unwrap_or_default();
    let usage =
        |what: &str| Failure::new(FailureKind::Usage, what).try_to("the address as `keyferry share` printed it");
    if key.contains('…') || key.ends_with("...") {
        return usage("the address was cut short: a part of its key is missing");
    }
    let has = |is: fn(&char) -> bool| key.chars().any(|c| is(&c));
    if looks_like_key(key) && has(char::is_ascii_uppercase) != has(char::is_ascii_lowercase) {
        return usage("the key in the address lost its difference of large and small letters, which matters");
    }
    error.into()
}

fn looks_like_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether somebody may have meant it as the key of a node, though letters of it were changed or lost.
fn looks_like_key(text: &str) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("12D3")) && text.len() > 8
}

/// Takes out what cannot be seen, and what mail programs and web pages write for other characters.
fn undo_transport(pasted: &str) -> String {
    let mut text: String = pasted.chars().filter(|c| !is_invisible(*c)).collect();
    // Full-width forms, as keyboards for Chinese and Japanese write them.
    for (written, meant) in [("：", ":"), ("／", "/"), ("？", "?"), ("\r\n", "\n"), ("=\n", "\n"), ("via=3D", "via=")]
    {
        text = text.replace(written, meant);
    }
    for written in ["&amp;via=", "&#38;via=", "&AMP;via="] {
        text = text.replace(written, "&via=");
    }
    text
}

/// Whether no name can have the character, and nobody sees it: spaces of no width, byte order marks, marks of direction, soft hyphens.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Joins lines that a mail program broke, without the marks of a quotation. A blank line ends it.
fn join_lines(text: &str) -> Result<Cow<'_, str>, Failure> {
    let mut lines = text.split(['\n', '\r', '\u{2028}']).map(|line| line.trim().trim_start_matches(['>', '|', ' ']));
    let first = lines.next().unwrap_or_default();
    let more: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    if more.is_empty() {
        return Ok(Cow::Borrowed(first));
    }
    let joined = format!("{first}{}", more.concat());
    let is_more_of_it = |line: &&str| trim_end(line).chars().all(is_of_address);
    match parse(trim_end(first)) {
        Ok(address) if !more.iter().all(is_more_of_it) => {
            Err(unclear(&address.to_string(), &format!("{SCHEME}{joined}")))
        }
        _ => Ok(Cow::Owned(joined)),
    }
}

/// Without white space where an address has none: in its key or hash, and in its hints.
fn without_gaps(text: &str) -> String {
    let (target, hints) = text.split_at(text.find("?via").unwrap_or(text.len()));
    let (key, name) = target.split_at(target.find('/').unwrap_or(target.len()));
    let dense = |part: &str| part.split_whitespace().collect::<String>();
    format!("{}{}{}", dense(key), name.trim_end(), dense(hints))
}

/// Without the white space and the marks that stand behind an address in a sentence or a document. An address writes them otherwise.
fn trim_end(text: &str) -> &str {
    let mut text = text;
    while let Some(last) = text.chars().next_back() {
        let unopened = |opener: char| text.matches(opener).count() < text.matches(last).count();
        let is_junk = match last {
            ')' => unopened('('),
            ']' => unopened('['),
            '}' => unopened('{'),
            '…' => false,
            _ => last.is_whitespace() || ",;!>\"'`*|”’»›«“，。；！、）】".contains(last),
        };
        if !is_junk {
            break;
        }
        text = &text[..text.len() - last.len_utf8()];
    }
    text
}

fn unclear(one: &str, other: &str) -> Failure {
    Failure::usage(format!("it is not clear where the address ends: {one:?} or {other:?}"))
        .try_to("the address alone, in one line")
}

/// What closes what an opening mark opens.
fn closer(opener: char) -> Option<char> {
    Some(match opener {
        '<' => '>',
        '(' => ')',
        '[' => ']',
        '{' => '}',
        '"' | '\'' | '`' | '*' | '_' | '|' => opener,
        '“' | '„' => '”',
        '‘' | '‚' => '’',
        '«' => '»',
        '»' => '«',
        '（' => '）',
        '【' => '】',
        '「' => '」',
        _ => return None,
    })
}

/// Whether an address in its exact form may have the character.
fn is_of_address(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%/:?=&".contains(c)
}

fn is_command_word(word: &str) -> bool {
    let bare = word.trim_matches(|c| closer(c).is_some());
    bare.is_empty() || COMMAND_WORDS.contains(&bare) || bare.ends_with("/keyferry")
}

#[cfg(test)]
mod tests;
