//! Texts with places to fill in: `{…}`; `{{` and `}}` stand for braces.
//!
//! What it is not: what a place stands for; `plan` knows that.

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'t> {
    Text(String),
    /// What stands between braces.
    Place(&'t str),
}

/// Why a text has no places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BraceError {
    /// A `{` without its `}`.
    Open,
    /// A `}` without its `{`.
    Closed,
}

/// Takes a text apart. Neighbouring texts are one, and none is empty.
pub(crate) fn parse(text: &str) -> Result<Vec<Token<'_>>, BraceError> {
    let mut tokens = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            plain.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            plain.push('}');
            rest = after;
        } else if rest.starts_with('}') {
            return Err(BraceError::Closed);
        } else {
            let (name, after) = rest[1..].split_once('}').ok_or(BraceError::Open)?;
            if name.contains('{') {
                return Err(BraceError::Open);
            }
            if !plain.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut plain)));
            }
            tokens.push(Token::Place(name));
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        tokens.push(Token::Text(plain));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Token<'_> {
        Token::Text(text.to_owned())
    }

    #[test]
    fn places_and_braces_are_told_apart() {
        assert_eq!(parse("a{b}c"), Ok(vec![text("a"), Token::Place("b"), text("c")]));
        assert_eq!(parse("{{\"k\": {v}}}"), Ok(vec![text("{\"k\": "), Token::Place("v"), text("}")]));
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("{a}{b}"), Ok(vec![Token::Place("a"), Token::Place("b")]));
    }

    #[test]
    fn braces_come_in_pairs() {
        assert_eq!(parse("a{b"), Err(BraceError::Open));
        assert_eq!(parse("a{b{c}"), Err(BraceError::Open));
        assert_eq!(parse("a}b"), Err(BraceError::Closed));
    }
}
