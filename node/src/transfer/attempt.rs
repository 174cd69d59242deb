//! One attempt of a fetch under one plan: the loop between sessions, the schedule and the requests.
//!
//! What it is not: the decision who is asked for what (`keyferry_proto::transfer::schedule`), or the receiving of bytes
//! (`receive`).

mod patience;
mod planning;
mod request;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry_proto::{
    identity::NodeKey,
    transfer::{
        schedule::{DropReason, HolderId, Input, Output, RequestId, Schedule, ScheduleConfig, ScheduleError, Why},
        units::UnitRanges,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::patience::Patience;
pub(super) use self::patience::Setback;
use self::{planning::plan_here, request::run_request};
use super::{
    FetchError,
    fetch::{FetchProgress, Job, Ledger, blocking},
    plan::Plan,
    receive::{Assignment, Progress, ReceiveError, Shared},
};
use crate::session::Session;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// How long a request may take to come to the end of what it is at, when its holder is asked over a better session: if the
/// path that it came by brings nothing any more, it would never.
const MOVE_PATIENCE: Duration = Duration::from_secs(1);
/// Reports of requests that wait for the fetch; a slow fetch slows the network, not the memory.
const MAX_WAITING_REPORTS: usize = 256;

/// Why an attempt did not bring everything.
pub(super) enum Ended {
    Failed(FetchError),
    /// Whoever described the content did so falsely, or is gone while another describes it differently.
    PlanWasWrong,
}

impl<E: Into<FetchError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Report {
    holder: HolderId,
    request: RequestId,
    what: What,
}

enum What {
    Progress(Progress),
    Ended(Result<(), ReceiveError>),
}

struct Running {
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
    shared: Arc<Shared>,
    ledger: Ledger,
    patience: Patience,
    schedule: Schedule,
    holders: HashMap<HolderId, Session>,
    next_holder: u64,
    requests: HashMap<RequestId, Running>,
    tasks: JoinSet<()>,
    reports: mpsc::Receiver<Report>,
    report_to: mpsc::Sender<Report>,
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
        let shared = Arc::new(Shared {
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
    ) -> Result<(), Ended> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let wake_at = match self.drain_schedule() {
                Step::Complete => {
                    tell(self.progress);
                    return Ok(());
                }
                Step::WaitUntil(at) => at,
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
        self.shared.plan.get().cloned().ok_or_else(|| FetchError::Internal("there is no plan".to_owned()))
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

    fn ban(&mut self, peer: NodeKey) {
        self.ledger.banned.insert(peer);
        self.holders.retain(|_, session| session.peer() != peer);
    }

    fn input(&mut self, input: Input) -> Result<(), FetchError> {
        self.input_at(Instant::now(), input)
    }

    fn input_at(&mut self, now: Instant, input: Input) -> Result<(), FetchError> {
        self.schedule.handle_input(now, input).map_err(|error| FetchError::Internal(error.to_string()))
    }

    fn add_holder(&mut self, now: Instant, session: Session) -> Result<(), FetchError> {
        let peer = session.peer();
        if self.ledger.banned.contains(&peer) {
            tracing::debug!("a holder that lied is not asked again");
            return Ok(());
        }
        if let Some(id) = self.known_holder(&peer) {
            return self.move_holder(now, id, session);
        }
        let busy: HashSet<HolderId> = self.requests.values().map(|running| running.holder).collect();
        self.holders.retain(|id, session| busy.contains(id) || session.end().is_none());
        let id = HolderId(self.next_holder);
        match self.schedule.handle_input(now, Input::HolderAdded(id)) {
            Err(error @ ScheduleError::TooManyHolders { .. }) => {
                tracing::debug!(%error, "one more holder is left alone");
                return Ok(());
            }
            other => other.map_err(|error| FetchError::Internal(error.to_string()))?,
        }
        self.next_holder += 1;
        self.may_return.remove(&peer);
        self.holders.insert(id, session);
        Ok(())
    }

    /// The holder that a node is, if it can be asked.
    fn known_holder(&self, peer: &NodeKey) -> Option<HolderId> {
        self.schedule.holders().find(|id| self.holders.get(id).is_some_and(|session| session.peer() == *peer))
    }

    /// Asks a holder over another session from now on, if that is the better one.
    fn move_holder(&mut self, now: Instant, id: HolderId, session: Session) -> Result<(), FetchError> {
        let Some(present) = self.holders.get_mut(&id) else { return Ok(()) };
        let is_lost = present.end().is_some();
        if !is_lost && (session.path().kind.is_relayed() || !present.path().kind.is_relayed()) {
            return Ok(());
        }
        tracing::info!(path = %session.path(), instead_of = %present.path(), "a holder is asked over another session");
        self.may_return.remove(&session.peer());
        *present = session;
        for running in self.requests.values_mut().filter(|running| running.holder == id) {
            running.moved.get_or_insert(now);
        }
        self.input_at(now, Input::HolderMoved(id))
    }

    /// Ends the requests over sessions that were left and bring nothing more. They tell what they have verified before they
    /// report their end.
    fn end_moved(&self) {
        let now = Instant::now();
        let late = |moved: Instant| now.saturating_duration_since(moved) >= MOVE_PATIENCE;
        let is_late = |(id, running): &(&RequestId, &Running)| {
            running.moved.is_some_and(late) && self.planning != Some((running.holder, **id))
        };
        self.requests.iter().filter(is_late).for_each(|(_, running)| running.cancel.cancel());
    }

    fn drain_schedule(&mut self) -> Step {
        loop {
            match self.schedule.poll_output() {
                Output::Request { holder, request, ranges } => self.start_request(holder, request, ranges),
                Output::Shorten { request, end_unit, .. } => {
                    if let Some(running) = self.requests.get(&request) {
                        running.end_unit.fetch_min(end_unit, Ordering::Relaxed);
                    }
                }
                Output::Drop { holder, why: DropReason::Stalled } => {
                    self.ledger.setback = Some(Setback::Lost("it sends nothing".to_owned()));
                    self.forget_requests_of(holder);
                }
                Output::Drop { holder, why: DropReason::Empty } => {
                    self.ledger.setback.get_or_insert_with(|| Setback::Lost("its answers bring nothing".to_owned()));
                    self.forget_requests_of(holder);
                }
                Output::Complete => return Step::Complete,
                Output::Stuck { .. } => self.stuck_since = Instant::now(),
                Output::Timeout(at) => return Step::WaitUntil(at),
            }
        }
    }

    fn start_request(&mut self, holder: HolderId, request: RequestId, ranges: UnitRanges) {
        let Some(session) = self.holders.get(&holder).cloned() else {
            // Its session ended while it had nothing to do.
            let lost = self.input(Input::HolderLost(holder, Why::Closed));
            return lost.unwrap_or_else(|error| tracing::debug!(%error, "a holder that is gone is not given up"));
        };
        // Those that have ended leave nothing to be told.
        while self.tasks.try_join_next().is_some() {}
        let end_unit = Arc::new(AtomicU64::new(u64::MAX));
        let cancel = self.stop.child_token();
        let assignment = Assignment { ranges, end_unit: Arc::clone(&end_unit), cancel: cancel.clone() };
        let running = Running { holder, session: session.clone(), end_unit, cancel, moved: None };
        self.requests.insert(request, running);
        let (shared, report_to) = (Arc::clone(&self.shared), self.report_to.clone());
        self.tasks.spawn(async move {
            let to = report_to.clone();
            let report = move |progress| {
                // The fetch is over if nobody listens.
                let _ = to.blocking_send(Report { holder, request, what: What::Progress(progress) });
            };
            let ended = run_request(session, shared, assignment, report).await;
            let _ = report_to.send(Report { holder, request, what: What::Ended(ended) }).await;
        });
    }

    fn on_report(&mut self, report: Report) -> Result<(), Ended> {
        let Report { holder, request, what } = report;
        match what {
            What::Progress(progress) => Ok(self.on_progress(holder, request, progress)?),
            What::Ended(ended) => {
                if self.planning == Some((holder, request)) {
                    self.planning = None;
                }
                match self.requests.remove(&request) {
                    // The session that it left may have ended meanwhile: no reason to doubt the holder.
                    Some(Running { moved: Some(_), .. }) if ended.as_ref().is_err_and(is_interruption) => {
                        Ok(self.input(Input::RequestEnded { holder, request })?)
                    }
                    Some(_) => self.on_ended(holder, request, ended),
                    None => Ok(()),
                }
            }
        }
    }

    /// Progress counts also of a request that was given up meanwhile: it is verified, and on disk.
    fn on_progress(&mut self, holder: HolderId, request: RequestId, progress: Progress) -> Result<(), FetchError> {
        let now = Instant::now();
        match progress {
            Progress::Alive => {
                self.ledger.last_gain = now;
                self.input_at(now, Input::Alive(holder))
            }
            Progress::Planning => {
                self.planning = Some((holder, request));
                Ok(())
            }
            Progress::Planned { have } => {
                self.planning = None;
                self.describer = self.holders.get(&holder).map(Session::peer);
                self.planned(now, have)?;
                self.input_at(now, Input::Alive(holder))
            }
            Progress::Verified { units } => {
                let gained = self.count(units.clone());
                self.ledger.last_gain = now;
                // One that was given up may still tell of something.
                let given_up = self.holders.get(&holder);
                let from = self.requests.get(&request).map(|running| &running.session).or(given_up);
                if let Some(session) = from.filter(|_| gained > 0) {
                    self.ledger.give(session, gained);
                }
                self.input_at(now, Input::Verified { holder, units })
            }
            Progress::ItemRefused { units, refusal } => {
                self.ledger.setback = Some(Setback::Refused(refusal));
                self.input_at(now, Input::ItemRefused { holder, units })
            }
        }
    }

    /// Who makes the plan is busy on this side; that is not its silence.
    fn excuse_planner(&mut self) -> Result<(), FetchError> {
        match self.planning {
            Some((holder, _)) => {
                self.ledger.last_gain = Instant::now();
                self.input(Input::Alive(holder))
            }
            None => Ok(()),
        }
    }

    /// Takes the plan's stock into account.
    fn planned(&mut self, now: Instant, have: UnitRanges) -> Result<(), FetchError> {
        let plan = self.plan()?;
        self.progress.total_bytes = plan.content_len();
        self.progress.total_files = plan.file_count();
        self.progress.done_files += plan.empty_file_count();
        let before = self.progress.done_bytes;
        for range in have.iter() {
            self.count(range);
        }
        // An attempt before this one may have fetched some of it.
        let here = self.progress.done_bytes - before;
        self.ledger.resumed_bytes = self.ledger.resumed_bytes.max(here.saturating_sub(self.ledger.given_bytes()));
        self.ledger.last_gain = now;
        self.input_at(now, Input::Planned { total_units: plan.layout.total_units(), have })
    }

    /// Adds verified units to what the user is told, and returns the content bytes that are new.
    fn count(&mut self, units: Range<u64>) -> u64 {
        let Some(plan) = self.shared.plan.get() else { return 0 };
        let fresh = UnitRanges::from(units.clone()).difference(&self.have);
        self.have.insert(units);
        let mut gained = 0;
        for (index, item, groups) in plan.layout.select(&fresh) {
            if plan.is_manifest(index) {
                continue;
            }
            let in_layout = groups.iter().map(|range| item.first_unit + range.start..item.first_unit + range.end);
            gained += in_layout.map(|range| plan.layout.byte_len(range)).sum::<u64>();
            if self.have.covers(item.unit_range()) {
                let files = plan.files_of(index);
                self.progress.done_files += files;
                // The others are copies of the first.
                self.progress.done_bytes += files.saturating_sub(1) * item.size;
            }
        }
        self.progress.done_bytes += gained;
        gained
    }

    fn on_ended(&mut self, id: HolderId, request: RequestId, ended: Result<(), ReceiveError>) -> Result<(), Ended> {
        let ask_again = Input::RequestEnded { holder: id, request };
        let peer = self.holders.get(&id).map(Session::peer);
        let why = match ended {
            Ok(()) => return Ok(self.input(ask_again)?),
            Err(ReceiveError::Local(error)) => return Err(Ended::Failed(error)),
            Err(ReceiveError::Hostile(what)) => {
                tracing::debug!(%what, "a holder lied");
                self.ledger.setback = Some(Setback::Lied(what));
                if let Some(peer) = peer {
                    self.ban(peer);
                    // Whoever agreed with a false description lied as well, but is no reason to doubt it.
                    if self.unproven_describer() == Some(peer) {
                        return Err(Ended::PlanWasWrong);
                    }
                }
                Why::Lied
            }
            Err(error @ ReceiveError::Disagrees { .. }) => {
                self.someone_disagrees = true;
                self.ledger.setback = Some(Setback::Lost(error.to_string()));
                Why::Failed
            }
            Err(ReceiveError::Refused(refusal)) => {
                self.ledger.setback = Some(Setback::Refused(refusal));
                Why::Failed
            }
            Err(error @ ReceiveError::Connection(_)) => {
                self.ledger.setback = Some(Setback::Lost(error.to_string()));
                // A holder whose file changed ends the stream; asked again, it says why.
                if self.holders.get(&id).is_some_and(|session| session.end().is_none()) {
                    return Ok(self.input(ask_again)?);
                }
                self.may_return.extend(peer);
                Why::Closed
            }
        };
        self.forget_requests_of(id);
        Ok(self.input(Input::HolderLost(id, why))?)
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

/// Whether a request ended for no fault of anybody's but the path's, or because it was told to.
fn is_interruption(error: &ReceiveError) -> bool {
    matches!(error, ReceiveError::Connection(_) | ReceiveError::Local(FetchError::Interrupted))
}

enum Step {
    Complete,
    WaitUntil(Option<Instant>),
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
