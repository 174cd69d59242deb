//! Keyferry: share and fetch files by public key.
//!
//! The floors of the house; imports go downwards only:
//!
//! | floor       | what it is                                                                                         |
//! |-------------|----------------------------------------------------------------------------------------------------|
//! | [`node`]    | a whole node: put together, announced, driven by commands that it answers with events              |
//! | [`connect`] | who connects to whom: callers, callees, crossing calls, ICE, the sessions that stand               |
//! | [`reach`]   | where nodes are: candidates of our own, offers of others, TURN servers, and being one              |
//! | [`content`] | what is shared: the store, and moving files over sessions                                          |
//! | [`net`]     | the port, paths of bytes, and the sessions on them                                                 |
//! | [`base`]    | what everything stands on: the clock, files, the data folder                                       |

pub mod base;
pub mod connect;
pub mod content;
pub mod net;
pub mod node;
pub mod reach;
