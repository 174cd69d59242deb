//! A scenario that can be run: every name in it is known, every value is within its bounds, every count is spelled out.
//!
//! What it is not: the text that it was written as (`file`), or what came of it (`outcome`).

use std::{fmt, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::network::{Properties, core::Way};

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, as it was named.
    pub(crate) file: PathBuf,
    /// From 1.
    pub(crate) line: usize,
    /// From 1.
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One run: a scenario file with one choice of its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    /// Its name: the file's, without `.toml`.
    pub(crate) name: String,
    /// What it asks.
    pub(crate) question: String,
    /// The values that this run has, of those that the file repeats over, in the file's order.
    pub(crate) values: Vec<(String, String)>,
    /// Where random content and losses begin.
    pub(crate) seed: u64,
    /// How long all steps may take together.
    pub(crate) limit: Duration,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) sites: Vec<Site>,
    /// How ways are between two sites: the last that fits two sites is theirs.
    pub(crate) links: Vec<Link>,
    pub(crate) contents: Vec<Content>,
    pub(crate) nodes: Vec<Node>,
    /// What runs on nodes, in the order in which it can start; steps and expectations point here.
    pub(crate) processes: Vec<Process>,
    /// Sorted such that each comes after those that it waits for.
    pub(crate) steps: Vec<Step>,
    pub(crate) expectations: Vec<Expectation>,
}

impl Scenario {
    /// How often a process is started in all: from the beginning, and by steps.
    pub(crate) fn starts_of(&self, process: ProcessId) -> usize {
        let is_main = |node: &Node| node.main == Some(process);
        let from_beginning = self.nodes.iter().filter(|node| is_main(node)).count();
        let by_steps = self.steps.iter().filter(|step| match &step.action {
            Action::Run { processes, .. } => processes.contains(&process),
            Action::Start { nodes } => nodes.iter().any(|node| is_main(&self.nodes[node.0])),
            _ => false,
        });
        from_beginning + by_steps.count()
    }
}

/// Public `keyferry` nodes at sites of their own, by which the others find each other. Each `keyferry` process bootstraps from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    /// How many; 0 where no node is a `keyferry`, or none is wanted.
    pub(crate) nodes: usize,
    /// Whether they relay for others.
    pub(crate) relaying: bool,
}

// Indices into the vectors of a `Scenario`; only `plan` makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SiteId(pub(crate) usize);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) usize);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StepId(pub(crate) usize);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContentId(pub(crate) usize);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Site {
    /// Of a site with a count: `name-1`, `name-2`, …
    pub(crate) name: String,
    /// The preset's name.
    pub(crate) preset: &'static str,
    /// The preset's, with what the file overrides.
    pub(crate) properties: Properties,
    /// Whether packets of its line are written to `captures/NAME.pcap`.
    pub(crate) capture: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) between: Between,
    /// The whole of it: what the file does not say has its default.
    pub(crate) way: Way,
}

/// Where a link is, in either direction. Wider ones are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Between {
    /// Between any two sites.
    Any,
    /// Between a site and everybody, public nodes included.
    Of(SiteId),
    /// Between these two.
    Two(SiteId, SiteId),
}

/// The other side of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Others {
    Sites(Vec<SiteId>),
    /// All but those of the first side, public nodes included.
    Everybody,
}

/// Files that are made from the seed before anything starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) kind: ContentKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// One file.
    File { bytes: u64 },
    /// A tree of files of this size each, a hundred to a folder.
    Tree { files: u64, bytes_each: u64 },
}

/// A host at a site. Its data folder lives as long as the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Of a node with a count: `name-1`, `name-2`, …
    pub(crate) name: String,
    pub(crate) site: SiteId,
    /// What runs from the beginning, if anything.
    pub(crate) main: Option<ProcessId>,
    /// How far its clock is from the right time.
    pub(crate) clock: ClockOffset,
    /// The size of the file system of its data folder, where it has one of its own.
    pub(crate) disk_bytes: Option<u64>,
}

/// A clock that is ahead or behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClockOffset {
    pub(crate) seconds: i64,
}

/// Something that runs on a node: its own command, or one of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Process {
    /// `NODE` for a node's own command, `NODE.NAME` for a step's.
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) command: Command,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    pub(crate) program: Program,
    pub(crate) arguments: Vec<Template>,
    /// Besides what every `keyferry` of a lab gets; a value replaces that.
    pub(crate) environment: Vec<(String, Template)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// The project's own, with `--json --home HOME` before its arguments.
    Keyferry,
    /// Any other.
    Other(Template),
}

/// A text with places to fill in: `{…}`; `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Part>);

impl Template {
    /// The text, if nothing has to be filled in.
    pub(crate) fn plain(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    /// `{NAME}`: what a step captured that is always over before.
    Captured(String),
    /// `{content.NAME}`: its path.
    Content(ContentId),
    /// `{home}`: the folder of the node that runs it; relative paths are below it too.
    Home,
    /// `{node.NAME.home}`, for commands that look at another's files.
    HomeOf(NodeId),
    /// `{node.NAME.address}`: the first address of a host, IPv4 if it has any.
    AddressOf(NodeId),
    /// `{site.NAME.address}`: the outer address of a site.
    OuterAddressOf(SiteId),
    /// `{seed}`.
    Seed,
    /// `{keyferry-sim}`: this program.
    Simulator,
}

/// Something that is done or waited for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Its name, or `step 3`.
    pub(crate) name: String,
    pub(crate) place: Place,
    /// A few words for a person: `replug laptop`.
    pub(crate) words: String,
    /// It begins when these are over; by default the one before it in the file.
    pub(crate) after: Vec<StepId>,
    /// And so long after them.
    pub(crate) pause: Duration,
    /// And not before this time after the beginning.
    pub(crate) at: Duration,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Starts processes at once, waits until all have ended, and fails after that time; goes on at once where there is none.
    Run { processes: Vec<ProcessId>, wait: Option<Duration> },
    /// Sends a signal.
    Kill { processes: Vec<ProcessId>, signal: i32 },
    /// Ends a node's own process with SIGTERM and waits for that.
    Stop { nodes: Vec<NodeId> },
    /// Starts a node's own process again, with the same data folder.
    Start { nodes: Vec<NodeId> },
    /// Nothing passes from one to another any more, in either direction.
    Cut { sites: (Vec<SiteId>, Others) },
    /// It does again.
    Heal { sites: (Vec<SiteId>, Others) },
    /// The host gets another address in the same site, or goes to another site (after so long without any).
    Replug { node: NodeId, to: Option<SiteId>, gone: Duration },
    /// The routers of a site forget all connections, and are down for so long.
    RestartRouter { sites: Vec<SiteId>, down: Duration },
    /// A site's routers behave differently from now on.
    SetSite { site: SiteId, properties: Properties },
    /// A way is different from now on.
    SetLink { link: Link },
    /// Fills the file system of a node's data folder but for so many bytes.
    FillDisk { node: NodeId, leave_bytes: u64 },
    /// Waits until each of the processes has told such an event, and captures values of it.
    WaitFor { event: EventMatch, processes: Vec<ProcessId>, since: Since, within: Duration, captures: Vec<Capture> },
    /// Does nothing: for its pause or time.
    Pause,
}

/// From when on events count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Beginning,
    /// Since this step began to wait.
    Now,
}

/// One event of a process' `--json` output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EventMatch {
    /// Its field `event`; any where none.
    pub(crate) event: Option<String>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) field: FieldPath,
    pub(crate) test: Test,
}

/// `a.b.0`: fields and indices into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldPath(pub(crate) Vec<String>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    Is(Value),
    AtLeast(f64),
    AtMost(f64),
    Contains(String),
    Exists(bool),
}

/// The value of a field, under a name from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) field: FieldPath,
}

/// What has to hold at the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expectation {
    pub(crate) place: Place,
    /// What it says, for a person: `getter.get ends with 0`.
    pub(crate) words: String,
    pub(crate) kind: ExpectationKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ExpectationKind {
    /// All have ended with this code.
    Exit { processes: Vec<ProcessId>, code: i32 },
    /// Each has told such an event, in that time where one is given.
    Event { processes: Vec<ProcessId>, event: EventMatch, window: Window },
    /// None has told such an event, in that time where one is given.
    NoEvent { processes: Vec<ProcessId>, event: EventMatch, window: Window },
    /// A file or tree at a node (below its home, or absolute) is bit for bit a content.
    Same { content: ContentId, node: NodeId, path: Template },
    /// The last `connected` (or `pinged`) of each, or any of them, was over such a path.
    Path { processes: Vec<ProcessId>, path: Option<PathClass>, strategy: Option<String>, ever: bool },
    /// Each ran no longer than that.
    Took { processes: Vec<ProcessId>, at_most: Duration },
    /// None ran longer than so many times as long as the longest of the others did.
    Slower { processes: Vec<ProcessId>, than: Vec<ProcessId>, at_most: f64 },
    /// From the end of a step on, no `done_bytes` of `fetching` stood still for longer than that, until each process had ended.
    Stall { processes: Vec<ProcessId>, after: StepId, at_most: Duration },
    /// What each `fetched` says to have received beyond the content.
    ReceivedBeyond { processes: Vec<ProcessId>, at_most_bytes: u64 },
    /// The most that each had resident.
    Memory { processes: Vec<ProcessId>, at_most_bytes: u64 },
    /// What the line of each node's site carried in both directions, a minute, within a time after the beginning.
    Traffic { nodes: Vec<NodeId>, from: Duration, to: Duration, at_most_bytes_a_minute: u64 },
    /// No packet came from a site of the first to one of the second (routers' answers do not count).
    NoPacket { from: Vec<SiteId>, to: Vec<SiteId>, window: Window },
    /// How many of these processes ended with 0.
    AtLeastOk { processes: Vec<ProcessId>, at_least: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathClass {
    Direct,
    Relay,
}

/// A time: from the end of a step (or the beginning), for so long (or until the end).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    pub(crate) after: Option<StepId>,
    pub(crate) within: Option<Duration>,
}
