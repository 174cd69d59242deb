//! The relay over real sockets, with this node's own client and with coturn's.

mod bench;
mod coturn;
mod crowd;
mod joined;
