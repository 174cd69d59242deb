//! Secrets that stand in files, so that neither the command line nor the environment, which others may see, has to hold them.
//!
//! What it is not: asking at the terminal (`passphrase`).

use std::{fs::File, io::Read, path::Path};

use keyferry::{config::SecretText, control::Failure};
use zeroize::Zeroizing;

use crate::args::{Action, NetworkOptions, NodeArgs, RelayArgs, RelayOptions};

/// The longest file of secrets, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Reads the files that options name, and puts what is in them where the options of the secrets themselves would. Returns what to say
/// about secrets that others can see.
///
/// # Errors
///
/// A file that cannot be read, or that holds something else.
pub fn take_in(action: &mut Action) -> Result<Vec<&'static str>, Failure> {
    let (network, relay) = options(action);
    let mut notices = Vec::new();
    if let Some(network) = network {
        let have_passwords = |texts: &[SecretText]| texts.iter().any(|text| text.contains('@'));
        if have_passwords(&network.turn) || have_passwords(network.turn_proxy.as_slice()) {
            notices.push(
                "others may see a password that stands in the command line or the environment: name a file that holds it by \
                 --turn-file or --turn-proxy-file",
            );
        }
        if let Some(file) = &network.turn_file {
            network.turn.extend(lines(file)?);
        }
        if let Some(file) = &network.turn_proxy_file {
            network.turn_proxy = Some(line(file)?);
        }
    }
    if let Some(relay) = relay {
        if !relay.users.is_empty() || relay.secret.is_some() {
            notices.push(
                "others may see a secret of the relay that stands in the command line or the environment: name a file that holds \
                 it by --relay-users-file or --relay-secret-file",
            );
        }
        if let Some(file) = &relay.users_file {
            for user in lines(file)? {
                let wrong = |why| Failure::usage(format!("{} is no list of users: {why}", file.display()));
                relay.users.push(user.parse().map_err(wrong)?);
            }
        }
        if let Some(file) = &relay.secret_file {
            relay.secret = Some(line(file)?);
        }
    }
    Ok(notices)
}

/// The one line of a file.
///
/// # Errors
///
/// A file that cannot be read, or has no line, or more than one.
pub fn line(file: &Path) -> Result<SecretText, Failure> {
    let text = read(file)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r']) {
        return Err(Failure::usage(format!("{} has to hold one line, the secret", file.display())));
    }
    Ok(line.into())
}

/// The lines of a file, without empty ones and those that begin with `#`.
fn lines(file: &Path) -> Result<Vec<SecretText>, Failure> {
    let text = read(file)?;
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(said.map(SecretText::from).collect())
}

fn read(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |why: String| Failure::usage(format!("cannot read {}: {why}", file.display()));
    // As large as it may become, so that no part of it is left behind where it has grown from.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN as usize + 1));
    let file = File::open(file).map_err(|error| unreadable(error.to_string()))?;
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(unreadable(format!("it has more than {MAX_LEN} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not text in UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn options(action: &mut Action) -> (Option<&mut NetworkOptions>, Option<&mut RelayOptions>) {
    match action {
        Action::Share(args) => (Some(&mut args.network), None),
        Action::Get(args) => (Some(&mut args.network), None),
        Action::Ping(args) => (Some(&mut args.network), None),
        Action::Ls { network, .. } | Action::Doctor { network } => (Some(network), None),
        Action::Node(args) => {
            let NodeArgs { network, relay_options, .. } = &mut **args;
            (Some(network), Some(relay_options))
        }
        Action::Relay(args) => {
            let RelayArgs { network, relay_options, .. } = &mut **args;
            (Some(network), Some(relay_options))
        }
        Action::Id(_)
        | Action::Unshare { .. }
        | Action::Shares
        | Action::Contacts { .. }
        | Action::Status
        | Action::Store { .. }
        | Action::Completions { .. }
        | Action::Man { .. } => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn action(line: &str) -> Action {
        Cli::try_parse_from(line.split_whitespace()).unwrap().action
    }

    #[test]
    fn secrets_of_files_go_where_those_of_the_command_line_would() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).display().to_string()
        };
        let turn = file("turn", "# ours\n\nturn:a:b@192.0.2.1\r\nturns:c:d,e@192.0.2.2\n");
        let (proxy, users) = (file("proxy", "socks5://a:b@192.0.2.3:1080\n"), file("users", "ada:love\nbob:by,te\n"));
        let secret = file("secret", " a secret with blanks \n");
        let mut relay = action(&format!(
            "keyferry relay --turn-file {turn} --turn-proxy-file {proxy} --relay-users-file {users} --relay-secret-file {secret}"
        ));

        assert!(take_in(&mut relay).unwrap().is_empty());

        let Action::Relay(args) = relay else { panic!("{relay:?}") };
        assert_eq!(args.network.turn, ["turn:a:b@192.0.2.1", "turns:c:d,e@192.0.2.2"].map(SecretText::from));
        assert_eq!(args.network.turn_proxy.as_deref(), Some("socks5://a:b@192.0.2.3:1080"));
        let users: Vec<_> = args.relay_options.users.iter().map(|user| (&*user.name, &*user.password)).collect();
        assert_eq!(users, [("ada", "love"), ("bob", "by,te")]);
        assert_eq!(args.relay_options.secret.as_deref(), Some(" a secret with blanks "));
    }

    #[test]
    fn what_others_can_see_is_told_and_no_secret_is() {
        for (line, notices) in [
            ("keyferry get X --turn turn:a:hush@192.0.2.1", 1),
            ("keyferry relay --turn-proxy http://a:hush@192.0.2.1 --relay-user a:hush", 2),
            ("keyferry node --relay --relay-secret hush", 1),
            ("keyferry get X --turn-proxy http://192.0.2.1:3128", 0),
        ] {
            let mut action = action(line);
            let told = take_in(&mut action).unwrap();
            assert_eq!(told.len(), notices, "{line}: {told:?}");
            assert!(!format!("{told:?} {action:?}").contains("hush"), "{action:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for bad in [&b""[..], b"\n", b"two\nlines", b"\xff", &[b'x'; MAX_LEN as usize + 1]] {
            fs::write(&file, bad).unwrap();
            let failure = line(&file).unwrap_err();
            assert!(failure.message.contains("secret") && failure.message.lines().count() == 1, "{failure:?}");
        }
        assert!(line(&folder.path().join("none")).is_err());
        fs::write(&file, "ada\n").unwrap();
        let mut relay = action(&format!("keyferry relay --relay-users-file {}", file.display()));
        assert!(take_in(&mut relay).unwrap_err().message.contains("NAME:PASSWORD"));
    }
}
