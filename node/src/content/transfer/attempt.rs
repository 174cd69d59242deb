//! One attempt of a fetch under one plan: the loop between sessions, the schedule and the requests.
//!
//! What it is not: the decision who is asked for what (`keyferry_proto::transfer::schedule`), or the receiving of bytes
//! (`receive`).

mod holders;
mod patience;
mod planning;
mod reports;
mod request;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry_proto::{
    identity::NodeKey,
    transfer::{
        schedule::{DropReason, HolderId, Input, Output, RequestId, Schedule, ScheduleConfig},
        units::UnitRanges,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::{
    patience::{Patience, Setback},
    request::ask,
};
use self::{
    planning::plan_here,
    reports::{RequestReport, What},
    request::run_request,
};
use super::{
    FetchError, HolderError, InternalError,
    fetch::{FetchProgress, Job, Ledger, blocking},
    plan::Plan,
    receive::{Assignment, FetchContext},
};
use crate::net::session::Session;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// Reports of requests that wait for the fetch; a slow fetch slows the network, not the memory.
const MAX_WAITING_REPORTS: usize = 256;

/// Why an attempt did not bring everything.
pub(super) enum AttemptError {
    Failed(FetchError),
    /// Whoever described the content did so falsely, or is gone while another describes it differently.
    PlanWasWrong,
}

impl<E: Into<FetchError>> From<E> for AttemptError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct RunningRequest {
    holder: HolderId,
    /// Kept up until the request has ended, also if its holder is asked over another one by then.
    session: Session,
    end_unit: Arc<AtomicU64>,
    cancel: CancellationToken,
    /// When it was told to end, if its holder has moved to another session.
    moved: Option<Instant>,
}

/// One attempt under one plan.
pub(super) struct Attempt {
    shared: Arc<FetchContext>,
    ledger: Ledger,
    patience: Patience,
    schedule: Schedule,
    holders: HashMap<HolderId, Session>,
    next_holder: u64,
    requests: HashMap<RequestId, RunningRequest>,
    tasks: JoinSet<()>,
    reports: mpsc::Receiver<RequestReport>,
    report_to: mpsc::Sender<RequestReport>,
    /// Cancelled at the end of the attempt, also when it is dropped.
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
    have: UnitRanges,
    progress: FetchProgress,
    /// The request that is making the plan, which may take long.
    planning: Option<(HolderId, RequestId)>,
    /// Who described a blob; its word is proven only by the last chunk.
    describer: Option<NodeKey>,
    someone_disagrees: bool,
    /// Those whose sessions were lost, and who may be back.
    may_return: HashSet<NodeKey>,
    /// Since when there is nobody to ask.
    stuck_since: Instant,
    holders_closed: bool,
}

impl Attempt {
    /// Makes the plan, if the content's shape is known already.
    pub(super) async fn start(
        job: &Job,
        ledger: Ledger,
        sessions: Vec<Session>,
        patience: &Patience,
        cancel: &CancellationToken,
    ) -> Result<Self, FetchError> {
        let shared = Arc::new(FetchContext {
            store: job.store.clone(),
            target: job.target.clone(),
            root: job.root,
            format: job.format,
            plan: OnceLock::new(),
            planning: Mutex::new(()),
            arrivals: Arc::clone(&ledger.arrivals),
        });
        let planned = plan_here(&shared, job.root_size, cancel).await?;
        let now = Instant::now();
        let (report_to, reports) = mpsc::channel(MAX_WAITING_REPORTS);
        let stop = CancellationToken::new();
        let mut attempt = Self {
            shared,
            ledger,
            patience: patience.clone(),
            schedule: Schedule::new(ScheduleConfig::default()),
            holders: HashMap::new(),
            next_holder: 0,
            requests: HashMap::new(),
            tasks: JoinSet::new(),
            reports,
            report_to,
            _stop_when_dropped: stop.clone().drop_guard(),
            stop,
            have: UnitRanges::empty(),
            progress: FetchProgress::default(),
            planning: None,
            describer: None,
            someone_disagrees: false,
            may_return: HashSet::new(),
            stuck_since: now,
            holders_closed: false,
        };
        if let Some(have) = planned {
            attempt.planned(now, have)?;
        }
        for session in sessions {
            attempt.add_holder(now, session)?;
        }
        Ok(attempt)
    }

    /// Runs until everything is verified and on disk.
    pub(super) async fn run(
        &mut self,
        holders: &mut mpsc::Receiver<Session>,
        tell: &impl Fn(FetchProgress),
        cancel: &CancellationToken,
    ) -> Result<(), AttemptError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let wake_at = match self.drain_schedule() {
                ScheduleStep::Complete => {
                    tell(self.progress);
                    return Ok(());
                }
                ScheduleStep::WaitUntil(at) => at,
            };
            let patience = self.patience_left()?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(FetchError::Interrupted.into()),
                Some(report) = self.reports.recv() => self.on_report(report)?,
                session = holders.recv(), if !self.holders_closed => match session {
                    Some(session) => self.add_holder(Instant::now(), session)?,
                    None => self.holders_closed = true,
                },
                _ = tick.tick() => {
                    tell(self.progress);
                    self.excuse_planner()?;
                    self.end_moved();
                }
                () = wake(wake_at) => self.input(Input::Timeout)?,
                () = sleep(patience) => {}
            }
        }
    }

    /// Ends all requests, and waits until none writes any more.
    pub(super) async fn stop_requests(&mut self) {
        self.stop.cancel();
        // Whoever is about to report must not wait for a reader that is gone.
        self.reports.close();
        while self.tasks.join_next().await.is_some() {}
    }

    /// The plan of an attempt that is complete.
    pub(super) fn plan(&self) -> Result<Arc<Plan>, FetchError> {
        self.shared.plan.get().cloned().ok_or_else(|| InternalError::NoPlan.into())
    }

    /// Removes what a plan staged of which nothing was verified.
    pub(super) async fn discard_if_empty(&self) {
        let Some(plan) = self.shared.plan.get().cloned().filter(|_| self.have.is_empty()) else { return };
        if let Err(error) = blocking(move || plan.discard()).await {
            tracing::debug!(%error, "what a wrong plan left stays");
        }
    }

    pub(super) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// What the next attempt goes on with: the staging area is free once this has returned.
    pub(super) fn into_parts(self) -> (Ledger, Vec<Session>) {
        (self.ledger, self.holders.into_values().filter(|session| session.end().is_none()).collect())
    }

    fn input(&mut self, input: Input) -> Result<(), FetchError> {
        self.input_at(Instant::now(), input)
    }

    fn input_at(&mut self, now: Instant, input: Input) -> Result<(), FetchError> {
        Ok(self.schedule.handle_input(now, input).map_err(InternalError::from)?)
    }

    fn drain_schedule(&mut self) -> ScheduleStep {
        loop {
            match self.schedule.poll_output() {
                Output::Request { holder, request, ranges } => self.start_request(holder, request, ranges),
                Output::Shorten { request, end_unit, .. } => {
                    if let Some(running) = self.requests.get(&request) {
                        running.end_unit.fetch_min(end_unit, Ordering::Relaxed);
                    }
                }
                Output::Drop { holder, why: DropReason::Stalled } => {
                    self.ledger.setback = Some(Setback::Failed(HolderError::Silent));
                    self.forget_requests_of(holder);
                }
                Output::Drop { holder, why: DropReason::Empty } => {
                    self.ledger.setback.get_or_insert(Setback::Failed(HolderError::Useless));
                    self.forget_requests_of(holder);
                }
                Output::Complete => return ScheduleStep::Complete,
                Output::Stuck { .. } => self.stuck_since = Instant::now(),
                Output::Timeout(at) => return ScheduleStep::WaitUntil(at),
            }
        }
    }

    fn start_request(&mut self, holder: HolderId, request: RequestId, ranges: UnitRanges) {
        let Some(session) = self.holders.get(&holder).cloned() else {
            // Its session ended while it had nothing to do.
            let lost = self.input(Input::HolderLost(holder));
            return lost.unwrap_or_else(|error| tracing::debug!(%error, "a holder that is gone is not given up"));
        };
        // Those that have ended leave nothing to be told.
        while self.tasks.try_join_next().is_some() {}
        let end_unit = Arc::new(AtomicU64::new(u64::MAX));
        let cancel = self.stop.child_token();
        let assignment = Assignment { ranges, end_unit: Arc::clone(&end_unit), cancel: cancel.clone() };
        let running = RunningRequest { holder, session: session.clone(), end_unit, cancel, moved: None };
        self.requests.insert(request, running);
        let (shared, report_to) = (Arc::clone(&self.shared), self.report_to.clone());
        self.tasks.spawn(async move {
            let to = report_to.clone();
            let report = move |progress| {
                // The fetch is over if nobody listens.
                let _ = to.blocking_send(RequestReport { holder, request, what: What::Progress(progress) });
            };
            let ended = run_request(session, shared, assignment, report).await;
            let _ = report_to.send(RequestReport { holder, request, what: What::Ended(ended) }).await;
        });
    }

    fn forget_requests_of(&mut self, id: HolderId) {
        self.requests.retain(|_, running| {
            if running.holder == id {
                running.cancel.cancel();
            }
            running.holder != id
        });
    }
}

enum ScheduleStep {
    Complete,
    WaitUntil(Option<Instant>),
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
