//! The requests of an attempt that are under way, each with a task of its own, and what they report.
//!
//! What it is not: the choice of what to ask for, the receiving itself (`receive`), or a judgement of how a request ended.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry_proto::{
    message::ContentRequest,
    transfer::{
        schedule::{ProviderId, RequestId},
        units::UnitRanges,
    },
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    content::transfer::{
        FetchError, InternalError,
        context::FetchContext,
        receive::{Assignment, ReceiveError, ask, receive},
        sink::RequestProgress,
    },
    net::session::Session,
};

/// Reports of requests that wait for the fetch; a slow fetch slows the network, not the memory.
const MAX_WAITING_REPORTS: usize = 256;
/// How long a request may take to come to the end of what it is at, when its provider is asked over a better session: if the
/// path that it came by brings nothing any more, it would never.
const MOVE_PATIENCE: Duration = Duration::from_secs(1);

/// One message of a request to its attempt.
pub(super) struct RequestReport {
    pub(super) provider: ProviderId,
    pub(super) request: RequestId,
    pub(super) what: What,
}

/// What a request has to say.
pub(super) enum What {
    Progress(RequestProgress),
    Ended(Result<(), ReceiveError>),
}

/// The requests under way. Dropping it stops them.
pub(super) struct Requests {
    running: HashMap<RequestId, RunningRequest>,
    /// The request that is making the plan, which may take long.
    planning: Option<(ProviderId, RequestId)>,
    tasks: JoinSet<()>,
    reports: mpsc::Receiver<RequestReport>,
    report_to: mpsc::Sender<RequestReport>,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

/// One request that is under way.
pub(super) struct RunningRequest {
    provider: ProviderId,
    /// Kept up until the request has ended, also if its provider is asked over another one by then.
    session: Session,
    end_unit: Arc<AtomicU64>,
    cancel: CancellationToken,
    /// When its provider has moved to another session, if it has.
    moved: Option<Instant>,
}

impl RunningRequest {
    /// Whether its provider is asked over another session by now.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.is_some()
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        let (report_to, reports) = mpsc::channel(MAX_WAITING_REPORTS);
        let stop = CancellationToken::new();
        Self {
            running: HashMap::new(),
            planning: None,
            tasks: JoinSet::new(),
            reports,
            report_to,
            _stop_when_dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Asks a provider for units.
    pub(super) fn start(
        &mut self,
        provider: ProviderId,
        request: RequestId,
        ranges: UnitRanges,
        session: Session,
        context: Arc<FetchContext>,
    ) {
        // Those that have ended leave nothing to be told.
        while self.tasks.try_join_next().is_some() {}
        let end_unit = Arc::new(AtomicU64::new(u64::MAX));
        let cancel = self.stop.child_token();
        let assignment = Assignment { ranges, end_unit: Arc::clone(&end_unit), cancel: cancel.clone() };
        let running = RunningRequest { provider, session: session.clone(), end_unit, cancel, moved: None };
        self.running.insert(request, running);
        let report_to = self.report_to.clone();
        self.tasks.spawn(async move {
            let to = report_to.clone();
            let report = move |progress| {
                // The fetch is over if nobody listens.
                let _ = to.blocking_send(RequestReport { provider, request, what: What::Progress(progress) });
            };
            let ended = run(session, context, assignment, report).await;
            let _ = report_to.send(RequestReport { provider, request, what: What::Ended(ended) }).await;
        });
    }

    /// What a request says next. Cancel-safe.
    pub(super) async fn next_report(&mut self) -> Option<RequestReport> {
        self.reports.recv().await
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Those with requests under way.
    pub(super) fn busy(&self) -> HashSet<ProviderId> {
        self.running.values().map(|running| running.provider).collect()
    }

    /// The session that a request came by.
    pub(super) fn session(&self, request: RequestId) -> Option<&Session> {
        self.running.get(&request).map(|running| &running.session)
    }

    /// Leaves the units from `end_unit` on to others.
    pub(super) fn shorten(&self, request: RequestId, end_unit: u64) {
        if let Some(running) = self.running.get(&request) {
            running.end_unit.fetch_min(end_unit, Ordering::Relaxed);
        }
    }

    /// Takes out a request that has ended; none if it was given up before.
    pub(super) fn take_ended(&mut self, provider: ProviderId, request: RequestId) -> Option<RunningRequest> {
        if self.planning == Some((provider, request)) {
            self.planning = None;
        }
        self.running.remove(&request)
    }

    /// Notes that a request is making the plan.
    pub(super) fn plans(&mut self, provider: ProviderId, request: RequestId) {
        self.planning = Some((provider, request));
    }

    /// Notes that there is a plan.
    pub(super) fn planned(&mut self) {
        self.planning = None;
    }

    /// The provider whose answer the plan is being made from.
    pub(super) fn planner(&self) -> Option<ProviderId> {
        self.planning.map(|(provider, _)| provider)
    }

    /// Notes that a provider is asked over another session from now on.
    pub(super) fn leave(&mut self, provider: ProviderId, now: Instant) {
        for running in self.running.values_mut().filter(|running| running.provider == provider) {
            running.moved.get_or_insert(now);
        }
    }

    /// Ends the requests over sessions that were left and bring nothing more. They tell what they have verified before they
    /// report their end.
    pub(super) fn end_left(&self, now: Instant) {
        let late = |moved: Instant| now.saturating_duration_since(moved) >= MOVE_PATIENCE;
        let is_late = |(id, running): &(&RequestId, &RunningRequest)| {
            running.moved.is_some_and(late) && self.planning != Some((running.provider, **id))
        };
        self.running.iter().filter(is_late).for_each(|(_, running)| running.cancel.cancel());
    }

    /// Ends the requests to a provider that were sent over the session which was left: it is dead, or as good as that.
    pub(super) fn end_of(&self, provider: ProviderId) {
        let of_provider = |(id, running): &(&RequestId, &RunningRequest)| {
            running.provider == provider && running.has_moved() && self.planning != Some((provider, **id))
        };
        self.running.iter().filter(of_provider).for_each(|(_, running)| running.cancel.cancel());
    }

    /// Gives up the requests to a provider.
    pub(super) fn give_up(&mut self, provider: ProviderId) {
        self.running.retain(|_, running| {
            if running.provider == provider {
                running.cancel.cancel();
            }
            running.provider != provider
        });
    }

    /// Ends all, and waits until none writes any more.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        // Whoever is about to report must not wait for a reader that is gone.
        self.reports.close();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Sends one request, and receives its answer on a blocking thread.
async fn run(
    session: Session,
    context: Arc<FetchContext>,
    assignment: Assignment,
    report: impl Fn(RequestProgress) + Send + 'static,
) -> Result<(), ReceiveError> {
    let request = ContentRequest::groups(context.job.root, assignment.ranges.clone());
    let stream = match assignment.cancel.run_until_cancelled(ask(&session, request)).await {
        Some(stream) => stream?,
        None => return Ok(()),
    };
    drop(session);
    let runtime = Handle::current();
    let received = tokio::task::spawn_blocking(move || receive(stream, runtime, &context, &assignment, &report));
    received.await.map_err(|error| FetchError::from(InternalError::from(error)))?
}
