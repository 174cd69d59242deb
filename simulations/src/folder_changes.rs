//! The commands that change a data folder, the ground that they work on, and what is there before and after each.
//!
//! What it is not: what befalls them; see [`crate::kill_commands`] and [`crate::power_cuts`].

mod change;
mod ground;
mod state;

pub(crate) use self::{
    change::{Change, Kind},
    ground::{DISK, Ground, is_told},
    state::FolderState,
};
