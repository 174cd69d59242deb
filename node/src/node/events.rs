//! Telling a front end what happens while a command is carried out.
//!
//! What it is not: the events themselves; see [`super::api`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio::sync::mpsc;

use super::api::{Event, PingStage};
use crate::connect::trace::{PathNews, PathSink, StepSink, TraceStep};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Where a command tells what happens.
pub(crate) type Events = mpsc::Sender<Event>;

/// Tells the steps towards a node as events. A front end that is behind misses some.
pub(crate) fn steps_to(events: &Events) -> StepSink {
    let events = events.clone();
    Arc::new(move |step| {
        let event = match step {
            TraceStep::Doing(message) => Event::Stage { message },
            TraceStep::Done { stage, took, detail, pairs } => {
                Event::PingStage(PingStage { stage, took, detail, pairs: pairs.iter().map(Into::into).collect() })
            }
        };
        let _ = events.try_send(event);
    })
}

/// Tells what becomes of sessions as events.
pub(crate) fn paths_to(events: &Events) -> PathSink {
    let events = events.clone();
    Arc::new(move |news| {
        let events = events.clone();
        let event = match news {
            PathNews::Stands(path) => Event::Connected(path),
            PathNews::Ended(end) => Event::Disconnected(end),
        };
        async move { tell(&events, event).await }.boxed()
    })
}

/// Tells an event; a front end that is gone misses it.
pub(crate) async fn tell(events: &Events, event: Event) {
    let _ = events.send(event).await;
}

/// Lets something through a few times a second.
#[derive(Debug, Default)]
pub(crate) struct EventPace(Mutex<Option<Instant>>);

impl EventPace {
    /// Whether it is time again.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}
