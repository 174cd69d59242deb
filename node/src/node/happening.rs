//! What happens on a node that no command asked for, and that its owner should see.
//!
//! What it is not: a log, or a history: who is not there misses it.

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Node,
    api::{Event, UnservedFault, UnservedInfo},
};
use crate::content::{
    store::Store,
    transfer::serve::{SourceFault, SourceTrouble},
};

impl Node {
    /// What happens from now on: new versions of shares that follow their folders, and files that are shared and cannot be served.
    pub fn happenings(&self) -> BoxStream<'static, Event> {
        let store = self.store.clone();
        let troubles = heard(self.server.troubles());
        let troubles = troubles.filter_map(move |trouble| std::future::ready(unserved(&store, trouble)));
        stream::select(heard(self.happened.subscribe()), troubles).boxed()
    }
}

/// All that is told, as a stream that ends with the teller. Who is slow misses some.
fn heard<T: Clone + Send + 'static>(from: Receiver<T>) -> BoxStream<'static, T> {
    let next = |mut from: Receiver<T>| async move {
        loop {
            match from.recv().await {
                Ok(told) => return Some((told, from)),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "more happens than is shown"),
                Err(RecvError::Closed) => return None,
            }
        }
    };
    stream::unfold(from, next).boxed()
}

/// None for a version that a newer one has taken the place of: that its files have changed is no news.
fn unserved(store: &Store, trouble: SourceTrouble) -> Option<Event> {
    let SourceTrouble { path, root, fault } = trouble;
    let name = store.root(&root)?.name().cloned();
    let (fault, detail) = match fault {
        SourceFault::Changed => (UnservedFault::Changed, None),
        SourceFault::Gone => (UnservedFault::Gone, None),
        SourceFault::Unreadable(detail) => (UnservedFault::Unreadable, Some(detail)),
    };
    Some(Event::Unserved(UnservedInfo { path, name, fault, detail }))
}
