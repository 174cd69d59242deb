//! What the command line needs of the engine beside carrying out commands: to look at a data folder, and to start and stop a
//! node on it.
//!
//! What it is not: the node itself (`keyferry::node`).

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

use keyferry::{
    base::data_dir::{Home, HomeError},
    node::{Node, NodeConfig, api::Failure, runner::Runner},
};

/// What a look at a data folder shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderState {
    /// It can be opened, or made.
    Free,
    /// It can be opened, and its key is encrypted.
    PassphraseNeeded,
    /// Another process has it open.
    Busy,
}

/// A node in this process.
pub trait OwnNode: Runner {
    /// Leaves the network in order.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Starts nodes in this process.
pub trait Launcher: Send + Sync {
    /// Looks at a data folder; makes it, without a key, if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be used, with what to do about it.
    fn look(&self, home: &Path) -> Result<FolderState, Failure>;

    /// Starts a node.
    ///
    /// # Errors
    ///
    /// If it cannot be started, with what to do about it.
    fn start(&self, config: NodeConfig) -> BoxFuture<'_, Result<Arc<dyn OwnNode>, Failure>>;
}

/// Starts real nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineLauncher;

impl Launcher for EngineLauncher {
    fn look(&self, home: &Path) -> Result<FolderState, Failure> {
        let look = |home: Home| match home.identity_path().exists() {
            true => home.identity().map(|_| ()),
            false => Ok(()),
        };
        match Home::open(home).and_then(look) {
            Ok(()) => Ok(FolderState::Free),
            Err(HomeError::Busy { .. }) => Ok(FolderState::Busy),
            Err(HomeError::PassphraseNeeded { .. }) => Ok(FolderState::PassphraseNeeded),
            Err(error) => Err(error.into()),
        }
    }

    fn start(&self, config: NodeConfig) -> BoxFuture<'_, Result<Arc<dyn OwnNode>, Failure>> {
        async move { Ok(Node::start(config).await? as Arc<dyn OwnNode>) }.boxed()
    }
}

impl OwnNode for Node {
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Node::shutdown(self).boxed()
    }
}
