//! All keys of a scenario's file. docs/scenarios.md describes each.

use super::form::Form;

macro_rules! forms {
    ($($(#[$doc:meta])* $constant:ident = $name:literal [$($key:literal),* $(,)?];)*) => {
        $($(#[$doc])* pub(crate) static $constant: Form = Form { name: $name, keys: &[$($key),*] };)*

        /// All of them.
        #[cfg(test)]
        pub(crate) static ALL: &[&Form] = &[$(&$constant),*];
    };
}

forms! {
    TOP = "a scenario" [
        "question", "duration", "seed", "include", "rendezvous", "matrix", "case", "template", "site", "node", "link",
        "content", "step", "expect",
    ];
    RENDEZVOUS = "[rendezvous]" ["nodes", "relaying"];
    SITE = "[[site]]" [
        "name", "template", "preset", "count", "capture", "ipv4", "ipv6", "mapping", "filtering", "refusal", "hairpin",
        "upnp", "outward-ports", "forgets-after", "picks-up", "mtu", "uplink", "network",
    ];
    NODE = "[[node]]" [
        "name", "template", "site", "count", "keyferry", "command", "environment", "clock", "disk",
    ];
    LINK = "[[link]]" ["between", "latency", "jitter", "loss", "burst", "reorder", "rate", "queue"];
    CONTENT = "[[content]]" ["name", "size", "files", "size-each"];
    STEP = "[[step]]" [
        "name", "after", "pause", "at", "run", "kill", "stop", "start", "cut", "heal", "replug", "restart-router", "set",
        "fill-disk", "wait-for",
    ];
    RUN = "run" ["on", "keyferry", "command", "as", "environment", "wait", "within"];
    KILL = "kill" ["process", "signal"];
    REPLUG = "replug" ["node", "to", "gone"];
    RESTART_ROUTER = "restart-router" ["site", "down"];
    /// All that a site or a link can be while it runs.
    SET = "set" [
        "site", "link", "mapping", "filtering", "refusal", "hairpin", "upnp", "outward-ports", "forgets-after",
        "picks-up", "mtu", "uplink", "latency", "jitter", "loss", "burst", "reorder", "rate", "queue",
    ];
    FILL_DISK = "fill-disk" ["node", "leave"];
    WAIT_FOR = "wait-for" ["process", "event", "where", "since", "within", "capture"];
    /// What a field of an event can be, besides a value.
    TEST = "a condition" ["at-least", "at-most", "contains", "exists"];
    EXPECT = "[[expect]]" [
        "exit", "event", "no-event", "same", "path", "took", "slower", "stall", "received-beyond", "memory", "traffic",
        "no-packet", "at-least-ok",
    ];
    EXIT = "exit" ["process", "code"];
    EVENT = "event" ["process", "event", "where", "after", "within"];
    NO_EVENT = "no-event" ["process", "event", "where", "after", "within"];
    SAME = "same" ["content", "node", "path"];
    PATH = "path" ["process", "is", "strategy", "ever"];
    TOOK = "took" ["process", "at-most"];
    SLOWER = "slower" ["process", "than", "at-most"];
    STALL = "stall" ["process", "after", "at-most"];
    RECEIVED_BEYOND = "received-beyond" ["process", "at-most"];
    MEMORY = "memory" ["process", "at-most"];
    TRAFFIC = "traffic" ["node", "from", "to", "at-most"];
    NO_PACKET = "no-packet" ["from", "to", "after", "within"];
    AT_LEAST_OK = "at-least-ok" ["process", "at-least"];
}
