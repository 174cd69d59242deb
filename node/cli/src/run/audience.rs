//! To whom something is shared, as it was typed.
//!
//! What it is not: what that means for a peer (`keyferry::Audience`).

use std::path::Path;

use keyferry::{
    Audience, Invited, NodeKey,
    control::{Failure, FailureKind},
    data_dir::ContactsFile,
};

use crate::{args::ShareArgs, pasted};

/// The audience of a share; none if nothing was said of it, so that what is shared again stays with the same people.
pub(super) fn audience(home: &Path, args: &ShareArgs) -> Result<Option<Audience>, Failure> {
    let ShareArgs { to, listed, unannounced, .. } = args;
    let everyone = Audience::Everyone { listed: *listed, announced: !unannounced };
    if to.is_empty() {
        return Ok((*listed || *unannounced).then_some(everyone));
    }
    if to.iter().any(|whom| whom == "everyone") {
        return match to.len() {
            1 => Ok(Some(everyone)),
            _ => Err(usage("--to everyone leaves nobody out; it stands alone")),
        };
    }
    if *listed || *unannounced {
        let option = if *listed { "--listed" } else { "--unannounced" };
        return Err(usage(format!("{option} is for what is shared with everyone, and --to names some"))
            .try_to("one of the two; what is shared with some is announced to nobody, and listed to them alone"));
    }
    let nodes = to.iter().filter(|whom| *whom != "contacts").map(|whom| node(home, whom)).collect::<Result<_, _>>()?;
    let contacts = to.iter().any(|whom| whom == "contacts");
    let invited = Invited::new(contacts, nodes).map_err(|error| usage(error.to_string()))?;
    Ok(Some(Audience::Only(invited)))
}

fn node(home: &Path, whom: &str) -> Result<NodeKey, Failure> {
    if let Ok(node) = whom.parse() {
        return Ok(node);
    }
    let contact = ContactsFile::of(home).read()?.node_of(whom);
    contact.or_else(|| pasted::node_key(whom).ok()).ok_or_else(|| {
        usage(format!("there is no contact {whom:?}"))
            .try_to("a name that `keyferry contacts ls` lists, a key (12D3KooW…), contacts or everyone")
    })
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Action, Cli};

    const KEY: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    fn typed(home: &Path, options: &str) -> Result<Option<Audience>, String> {
        let cli = Cli::try_parse_from(format!("keyferry share X {options}").split_whitespace()).unwrap();
        let Action::Share(args) = cli.action else { panic!("{cli:?}") };
        audience(home, &args).map_err(|failure| failure.message)
    }

    #[test]
    fn nothing_said_is_no_audience_and_words_names_and_keys_are_one() {
        let home = tempfile::tempdir().unwrap();
        let key: NodeKey = KEY.parse().unwrap();
        ContactsFile::of(home.path()).add(key, Some("Ada")).unwrap();
        let typed = |options| typed(home.path(), options);
        let everyone = |listed, announced| Ok(Some(Audience::Everyone { listed, announced }));
        let only = |contacts, nodes| Ok(Some(Audience::Only(Invited::new(contacts, nodes).unwrap())));
        assert_eq!(typed(""), Ok(None));
        assert_eq!(typed("--to everyone"), everyone(false, true));
        assert_eq!(typed("--listed"), everyone(true, true));
        assert_eq!(typed("--to everyone --unannounced --listed"), everyone(true, false));
        assert_eq!(typed("--to contacts"), only(true, vec![]));
        assert_eq!(typed("--to Ada"), only(false, vec![key]));
        assert_eq!(typed(&format!("--to contacts --to {KEY} --to Ada")), only(true, vec![key]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let home = tempfile::tempdir().unwrap();
        for (options, problem) in [
            ("--to Bob", "no contact \"Bob\""),
            ("--to everyone --to contacts", "stands alone"),
            ("--to contacts --listed", "--listed"),
            ("--to contacts --unannounced", "--unannounced"),
        ] {
            let message = typed(home.path(), options).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }
}
