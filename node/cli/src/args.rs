//! What can be typed: the commands, their options and their help texts.
//!
//! What it is not: what the commands do (`run.rs`).

mod network;
mod relay;

use std::{env, ffi::OsStr, path::PathBuf};

use clap::{ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueHint};

use keyferry::{NodeKey, Wait};

pub use self::{network::NetworkOptions, relay::RelayOptions};
use super::pasted;
use keyferry::{config::AdmissionPolicy, control::MAX_PINGS};

/// Share and fetch files by public key, from machine to machine, with no server in between.
#[derive(Debug, Parser)]
#[command(
    name = "keyferry",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Examples:
  keyferry share holiday.mp4        prints the address that the other side types
  keyferry get keyferry:12D3KooW…/holiday.mp4

Exit codes: 0 done, 2 not understood or not there, 3 the peer or the network, 4 this machine, 130 interrupted."
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

impl Cli {
    /// Reads the arguments of the process. A variable of the environment that is empty counts as unset.
    ///
    /// # Errors
    ///
    /// What the arguments lack; help and version are errors, too.
    pub fn from_process() -> Result<Self, clap::Error> {
        let mut matches = without_empty_variables(Self::command()).try_get_matches()?;
        Self::from_arg_matches_mut(&mut matches)
    }
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |variable: &OsStr| env::var_os(variable).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&'static str>),
        false => arg,
    });
    command.mut_subcommands(without_empty_variables)
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct GlobalOptions {
    /// The data folder: key, catalogue, store [default: keyferry in the XDG data folder].
    #[arg(long, global = true, env = "KEYFERRY_HOME", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
    /// A file with the passphrase of the key, if it has one; else it is asked for.
    #[arg(long, global = true, env = "KEYFERRY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Print one JSON object a line on standard output, and nothing else.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress and no notices; results and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more about what happens inside; -vv and -vvv say still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Share files or folders under your public key, and serve them until Ctrl-C.
    ///
    /// Prints what to type on the other side. Files stay where they are and are served from there, unless --copy is given.
    /// If a node is already running on the data folder, it takes the files over and this command returns.
    /// What is shared again under its name replaces what had the name, for the same people.
    #[command(after_help = "Example:\n  keyferry share ~/Pictures/holiday --name holiday-2026")]
    Share(ShareArgs),
    /// Stop offering something: nobody gets it any more, and what is being sent of it ends.
    ///
    /// The files themselves are left alone. What others have fetched already stays theirs.
    #[command(after_help = "Example:\n  keyferry unshare holiday-2026")]
    Unshare {
        /// The name, or the hash of what is seeded, as `keyferry store ls` shows it.
        what: String,
    },
    /// Fetch a file or a folder by its address.
    ///
    /// Every 64 KiB is checked before it is kept. If it is interrupted, the same command goes on where it stopped. If whoever has it is
    /// away, it waits for them, and goes on when they are back: see --wait. What was fetched is given to nobody unless you say --seed.
    #[command(after_help = "Example:\n  keyferry get keyferry:12D3KooW…/holiday-2026 -o ~/Downloads")]
    Get(GetArgs),
    /// List what a node shares, or what is in a folder that it shares.
    #[command(
        after_help = "Examples:\n  keyferry ls keyferry:12D3KooW…\n  keyferry ls keyferry:12D3KooW…/holiday-2026/beach"
    )]
    Ls {
        /// The node: its key (12D3KooW…), or keyferry:NODE with hints; or a folder: keyferry:NODE/NAME, keyferry:NODE/NAME/PATH.
        node: String,
        /// How to take part in the network.
        #[command(flatten)]
        network: NetworkOptions,
    },
    /// Reach a node, and show each step on the way with its time.
    ///
    /// Says how the two are connected, or why they cannot be: the offer in the DHT, the call through another node, every pair
    /// of addresses that was tried, the proof of identity; then measures round trips.
    #[command(after_help = "Example:\n  keyferry ping 12D3KooW… --count 5")]
    Ping(PingArgs),
    /// Find out how others can reach this machine, and what to do if they cannot.
    ///
    /// Looks at the addresses, asks the router and hosts outside what they see and let in, and says what that amounts to. Takes a few
    /// seconds.
    #[command(after_help = "Example:\n  keyferry doctor --stun stun.example.org:3478")]
    Doctor {
        /// How to take part in the network.
        #[command(flatten)]
        network: NetworkOptions,
    },
    /// Stay up: serve what is shared, and help other nodes find each other.
    #[command(after_help = "Example:\n  keyferry node --public --listen 4600")]
    Node(Box<NodeArgs>),
    /// Relay for others, and do nothing else: connections between nodes that cannot reach each other go through here.
    ///
    /// It also helps them find each other. Nothing is shared. Forward the node's port and those of --relay-ports, if there is
    /// a router in between.
    #[command(after_help = "Example:\n  keyferry relay --public --listen 443")]
    Relay(Box<RelayArgs>),
    /// Show your public key, or make one.
    #[command(after_help = "Example:\n  keyferry id --new --passphrase")]
    Id(IdArgs),
    /// Look after the list of nodes that you know, by name.
    ///
    /// With --calls contacts, only these can call the node.
    #[command(after_help = "Example:\n  keyferry contacts add 12D3KooW… Ada")]
    Contacts {
        /// What to do with it.
        #[command(subcommand)]
        action: ContactsAction,
    },
    /// Look after what is stored here.
    #[command(after_help = "Example:\n  keyferry store verify")]
    Store {
        /// What to do with it.
        #[command(subcommand)]
        action: StoreAction,
    },
    /// List what this node offers, to whom, and who has fetched how much of it.
    ///
    /// What is stored here and offered to nobody is in `keyferry store ls`.
    #[command(after_help = "Example:\n  keyferry shares")]
    Shares,
    /// Show the state of the node of this data folder.
    #[command(after_help = "Example:\n  keyferry status --json")]
    Status,
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  keyferry completions bash > ~/.local/share/bash-completion/completions/keyferry"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages.
    #[command(hide = true, after_help = "Example:\n  keyferry man ~/.local/share/man/man1")]
    Man {
        /// The folder to write them to; without it, the main page goes to standard output.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// What `node` takes.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// How to take part in the network.
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Relay for others too (TURN over TCP): for everyone, contacts, or nobody but the users that are named.
    #[arg(long, env = "KEYFERRY_RELAY", value_name = "WHOM", num_args = 0..=1, default_missing_value = "everyone")]
    pub relay: Option<AdmissionPolicy>,
    /// How to relay for others.
    #[command(flatten)]
    pub relay_options: RelayOptions,
}

/// What `relay` takes.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// How to take part in the network.
    #[command(flatten)]
    pub network: NetworkOptions,
    /// For whom: everyone, contacts, or nobody but the users that are named.
    #[arg(long = "for", env = "KEYFERRY_RELAY", value_name = "WHOM", default_value = "everyone")]
    pub whom: AdmissionPolicy,
    /// How to relay for others.
    #[command(flatten)]
    pub relay_options: RelayOptions,
}

/// What `share` takes.
#[derive(Debug, Clone, Args)]
pub struct ShareArgs {
    /// Files or folders; or - for what comes on standard input, which is kept in the data folder and needs a --name.
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// The name to share it under, if there is one path [default: the name of the file or folder].
    #[arg(long)]
    pub name: Option<String>,
    /// Copy into the data folder, so that the original may change or go away.
    #[arg(long)]
    pub copy: bool,
    /// Follow it: a change makes a new version of the name by itself, as long as this or a node runs here, until it is unshared. Only
    /// what has changed is read again.
    #[arg(long, conflicts_with = "copy")]
    pub watch: bool,
    /// Leave out of folders what matches, as in a line of a .gitignore: *.tmp, /build/, .cache. Repeat it for several. Files named
    /// .keyferryignore in the folders hold such lines, too.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Refuse a folder of which something cannot be shared, instead of leaving that out.
    #[arg(long)]
    pub strict: bool,
    /// Share it with some only: a contact by name, a key, or contacts. Repeat it for several. To all others it does not exist. The word
    /// everyone opens it again [default: as it is shared already, or else everyone who has the address].
    #[arg(long, value_name = "WHOM")]
    pub to: Vec<String>,
    /// Do not announce it, nor give it by its hash alone: only by your key and its name or hash.
    #[arg(long)]
    pub unannounced: bool,
    /// Show it in `keyferry ls` to whoever has your key, and not to your contacts only.
    #[arg(long)]
    pub listed: bool,
    /// How to take part in the network.
    #[command(flatten)]
    pub network: NetworkOptions,
}

/// What `get` takes.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// What `keyferry share` printed: keyferry:NODE/NAME, keyferry:NODE/HASH or keyferry:HASH. Behind the name of a folder there may be a path in it:
    /// keyferry:NODE/NAME/PATH.
    pub address: String,
    /// What follows, where a whole line was pasted.
    #[arg(hide = true)]
    pub more: Vec<String>,
    /// Where to put it: a folder that is there, or any path that ends in /, under the name that it comes with. Any other path is the
    /// file or folder itself, such as -o photo.jpg. The bytes of a single file go to standard output with -o -.
    #[arg(short, long, value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub out: PathBuf,
    /// Replace files that exist already, whoever wrote them. Without this, a newer version replaces what an earlier one put there and nobody has
    /// changed since; all else is kept.
    #[arg(long)]
    pub overwrite: bool,
    /// Remove files that an earlier version had there and this one does not have, if nobody has changed them since.
    #[arg(long)]
    pub mirror: bool,
    /// Say what would be changed, and change nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Wait until everything is on the disk; without this, a power cut soon afterwards may take some of it.
    #[arg(long)]
    pub sync: bool,
    /// Offer it to others from there, by its hash, whenever a node runs on this data folder.
    #[arg(long, env = "KEYFERRY_SEED", value_parser = clap::builder::FalseyValueParser::new())]
    pub seed: bool,
    /// How long to wait for a node that is away: a duration such as 90s, 10m or 2h, forever, or none [default: 10m for one that was
    /// reached before, has an offer in the DHT or is a contact; a few seconds for others].
    #[arg(long, value_name = "TIME", default_value_t, hide_default_value = true)]
    pub wait: Wait,
    /// How to take part in the network.
    #[command(flatten)]
    pub network: NetworkOptions,
}

impl GetArgs {
    /// Whether the content is to go to standard output.
    pub fn is_streamed(&self) -> bool {
        self.out.as_os_str() == "-"
    }
}

/// What `ping` takes.
#[derive(Debug, Clone, Args)]
pub struct PingArgs {
    /// The node: its key (12D3KooW…), or keyferry:NODE with hints.
    pub node: String,
    /// How many round trips to measure once it is reached.
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_PINGS)))]
    pub count: u32,
    /// How to take part in the network.
    #[command(flatten)]
    pub network: NetworkOptions,
}

/// What `contacts` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ContactsAction {
    /// Add a node, or give it another name.
    #[command(after_help = "Example:\n  keyferry contacts add 12D3KooW… Ada")]
    Add {
        /// Its key: 12D3KooW….
        #[arg(value_parser = pasted::node_key)]
        node: NodeKey,
        /// Its name; without one it gets the end of its key.
        name: Option<String>,
    },
    /// Remove a node.
    #[command(after_help = "Example:\n  keyferry contacts rm Ada")]
    Rm {
        /// Its name or its key.
        what: String,
    },
    /// List all.
    Ls,
}

/// What `id` takes.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// Make a new key. One that exists is never overwritten: move its file away first.
    #[arg(long)]
    pub new: bool,
    /// Protect the new key by a passphrase, which is asked for (or read from --passphrase-file).
    #[arg(long, requires = "new")]
    pub passphrase: bool,
}

/// What `store` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreAction {
    /// List what is stored.
    Ls,
    /// Drop something from the store; files that are shared in place are left alone.
    #[command(after_help = "Example:\n  keyferry store rm holiday-2026")]
    Rm {
        /// Its name or its hash.
        what: String,
    },
    /// Read everything again and compare it with its hash.
    Verify,
    /// Remove what nothing refers to any more.
    Gc,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use keyferry::config::AdmissionPolicy;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let help = sub.get_after_help().map(|help| help.to_string()).unwrap_or_default();
            assert!(help.contains(&format!("keyferry {}", sub.get_name())), "{} has no example", sub.get_name());
        }
    }

    #[test]
    fn whose_calls_and_which_servers_are_checked_where_they_are_typed() {
        let cli = parse("keyferry node --calls contacts --stun 192.0.2.1:3478 --no-port-mapping").unwrap();
        let Action::Node(node) = cli.action else { panic!("not a node: {:?}", cli.action) };
        let network = node.network;
        assert_eq!((network.calls, network.stun.len()), (Some(AdmissionPolicy::Contacts), 1));

        let calls = parse("keyferry node --calls friends").unwrap_err().to_string();
        assert!(calls.contains("everyone, contacts, nobody"), "{calls}");
        assert!(parse("keyferry node --stun 192.0.2.1:0").is_err());
        assert!(parse("keyferry ping 12D3KooW --count 99999999").is_err());
        assert!(parse("keyferry contacts add nonsense").is_err());
    }

    #[test]
    fn a_node_relays_when_it_is_told_to_and_for_everyone_unless_it_is_told_for_whom() {
        let relay = |line: &str| match parse(line).unwrap().action {
            Action::Node(node) => node.relay,
            Action::Relay(relay) => Some(relay.whom),
            other => panic!("{other:?}"),
        };
        assert_eq!(relay("keyferry node"), None);
        assert_eq!(relay("keyferry node --relay"), Some(AdmissionPolicy::Everyone));
        assert_eq!(relay("keyferry node --relay contacts --listen 4600"), Some(AdmissionPolicy::Contacts));
        assert_eq!(relay("keyferry relay"), Some(AdmissionPolicy::Everyone));
        assert_eq!(relay("keyferry relay --for nobody --relay-user ada:lovelace"), Some(AdmissionPolicy::Nobody));
        assert!(parse("keyferry relay --relay-cert x.pem").is_err(), "a certificate needs its key");
        assert!(parse("keyferry relay --relay-ports 80-90").is_err());
        assert!(parse("keyferry relay --relay-allow-peer ten/8").is_err());
    }

    #[test]
    fn how_long_to_wait_is_a_duration_or_a_word() {
        use std::time::Duration;
        let wait = |line: &str| match parse(line) {
            Ok(Cli { action: Action::Get(get), .. }) => Ok(get.wait),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(wait("keyferry get X"), Ok(Wait::Known));
        assert_eq!(wait("keyferry get X --wait none"), Ok(Wait::None));
        assert_eq!(wait("keyferry get X --wait forever"), Ok(Wait::Forever));
        assert_eq!(wait("keyferry get X --wait 2m"), Ok(Wait::For(Duration::from_secs(120))));
        assert_eq!(wait("keyferry get X --wait 1h30m"), Ok(Wait::For(Duration::from_secs(5400))));
        for bad in ["10", "-5s", "soon", "5 minutes ago"] {
            let error = wait(&format!("keyferry get X --wait={}", bad.replace(' ', ""))).unwrap_err();
            assert!(error.contains("90s, 10m or 2h") && error.contains("forever, none"), "{error}");
        }
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        assert!(parse("keyferry --json status").unwrap().global.json);
        assert!(parse("keyferry status --json").unwrap().global.json);
        assert_eq!(parse("keyferry -vv status").unwrap().global.verbose, 2);
    }

    #[test]
    fn bad_values_are_refused_with_a_form_to_follow() {
        let listen = parse("keyferry node --listen localhost").unwrap_err().to_string();
        assert!(listen.contains("0.0.0.0:4600"), "{listen}");
        let bootstrap = parse("keyferry node --bootstrap 192.0.2.1:4600").unwrap_err().to_string();
        assert!(bootstrap.contains("/ip4/192.0.2.1/tcp/41414"), "{bootstrap}");
        assert!(parse("keyferry share").is_err());
        assert!(parse("keyferry id --passphrase").is_err());
        assert!(parse("keyferry -q -v status").is_err());
    }
}
