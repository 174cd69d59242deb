//! The relay over real sockets, with this node's own client, with one that says whatever a test wants, and with coturn's.

mod bench;
mod certificates;
mod checks;
mod coturn;
mod crowd;
mod external;
mod families;
mod joined;
mod lifetimes;
mod raw;
mod refusals;
