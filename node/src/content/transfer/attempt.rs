//! One attempt of a fetch under one plan: it takes what sessions, requests and the schedule say, and tells each what follows
//! for it.
//!
//! What it is not: the decision about who is asked for what (`keyferry_proto::transfer::schedule`), or the receiving of bytes
//! (`receive`).

mod providers;
mod refusals;
mod requests;
mod tally;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_proto::{
    hash::ContentFormat,
    message::Refusal,
    transfer::{
        schedule::{
            DropReason, ProviderId, RequestId, Schedule, ScheduleConfig, ScheduleError, ScheduleInput, ScheduleOutput,
        },
        units::UnitRanges,
    },
};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::tally::FetchProgress;
use self::{
    providers::Providers,
    refusals::RefusedItems,
    requests::{RequestReport, Requests, What},
    tally::Tally,
};
use super::{
    FetchError, InternalError, ProviderError,
    context::{FetchContext, FoundSources},
    ledger::Ledger,
    patience::Patience,
    plan::{FetchPlan, blocking},
    receive::ReceiveError,
    sink::RequestProgress,
};
use crate::net::session::{PeerName, Session};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);

/// Why an attempt did not bring everything.
pub(super) enum AttemptError {
    Failed(FetchError),
    /// Whoever described the content did so falsely, or is gone while another describes it differently.
    PlanWasWrong,
    /// These items of a folder are not to be had; all others are there.
    Partly(Vec<(usize, Refusal)>),
}

impl<E: Into<FetchError>> From<E> for AttemptError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One attempt under one plan.
pub(super) struct Attempt {
    context: Arc<FetchContext>,
    ledger: Ledger,
    patience: Patience,
    schedule: Schedule,
    providers: Providers,
    requests: Requests,
    tally: Tally,
    refused: RefusedItems,
    description: PlanBasis,
    /// Since when there is nobody to ask.
    stuck_since: Instant,
    /// Since when there is somebody, after all were away.
    back_since: Instant,
}

/// By whose word the plan goes.
#[derive(Default)]
struct PlanBasis {
    /// Who described a blob; its word is proven only by the last chunk.
    by: Option<PeerName>,
    is_disputed: bool,
}

impl Attempt {
    /// Begins with the plan of the context, if there is one, by which `planned` is here already.
    pub(super) fn start(
        context: Arc<FetchContext>,
        planned: Option<UnitRanges>,
        ledger: Ledger,
        sessions: Vec<Session>,
        patience: &Patience,
    ) -> Result<Self, FetchError> {
        let now = Instant::now();
        let mut attempt = Self {
            context,
            ledger,
            patience: patience.clone(),
            schedule: Schedule::new(ScheduleConfig::default()),
            providers: Providers::default(),
            requests: Requests::new(),
            tally: Tally::default(),
            refused: RefusedItems::default(),
            description: PlanBasis::default(),
            stuck_since: now,
            back_since: now,
        };
        if let Some(have) = planned {
            attempt.on_planned(now, have)?;
        }
        for session in sessions {
            attempt.on_session(now, session)?;
        }
        Ok(attempt)
    }

    /// Runs until everything is verified and on disk.
    pub(super) async fn run(
        &mut self,
        found: &mut FoundSources,
        tell: &impl Fn(FetchProgress),
        cancel: &CancellationToken,
    ) -> Result<(), AttemptError> {
        let mut tick = tokio::time::interval(TICK);
        let mut more_may_come = true;
        loop {
            let wake_at = match self.drain_schedule() {
                ScheduleStep::Complete => {
                    tell(self.progress());
                    return Ok(());
                }
                ScheduleStep::WaitUntil(at) => at,
            };
            let patience = self.patience_left(more_may_come, found.has_untried())?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(FetchError::Interrupted.into()),
                Some(report) = self.requests.next_report() => self.on_report(report)?,
                session = found.sessions.recv(), if more_may_come => match session {
                    Some(session) => self.on_session(Instant::now(), session)?,
                    None => more_may_come = false,
                },
                _ = tick.tick() => {
                    tell(self.progress());
                    self.excuse_planner()?;
                    self.requests.end_left(Instant::now());
                }
                () = wake(wake_at) => self.input(ScheduleInput::Timeout)?,
                () = sleep(patience) => {}
            }
        }
    }

    /// Ends all requests, and waits until none writes any more.
    pub(super) async fn stop_requests(&mut self) {
        self.requests.stop().await;
    }

    /// The plan of an attempt that is complete.
    pub(super) fn plan(&self) -> Result<Arc<FetchPlan>, FetchError> {
        self.context.plan.get().cloned().ok_or_else(|| InternalError::NoPlan.into())
    }

    /// Removes what a plan staged of which nothing was verified.
    pub(super) async fn discard_if_empty(&self) {
        let Some(plan) = self.context.plan.get().cloned().filter(|_| self.tally.is_empty()) else { return };
        if let Err(error) = blocking(move || plan.discard()).await {
            tracing::debug!(%error, "what a wrong plan left stays");
        }
    }

    pub(super) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// What the next attempt goes on with: the staging area is free once this has returned.
    pub(super) fn into_parts(self) -> (Ledger, Vec<Session>) {
        (self.ledger, self.providers.into_sessions())
    }

    fn input(&mut self, input: ScheduleInput) -> Result<(), FetchError> {
        self.input_at(Instant::now(), input)
    }

    fn input_at(&mut self, now: Instant, input: ScheduleInput) -> Result<(), FetchError> {
        Ok(self.schedule.handle_input(now, input).map_err(InternalError::from)?)
    }

    fn drain_schedule(&mut self) -> ScheduleStep {
        loop {
            match self.schedule.poll_output() {
                ScheduleOutput::Request { provider, request, ranges } => self.start_request(provider, request, ranges),
                ScheduleOutput::Shorten { request, end_unit, .. } => self.requests.shorten(request, end_unit),
                ScheduleOutput::Drop { provider, why: DropReason::Stalled } => {
                    self.ledger.note(ProviderError::Silent);
                    self.give_back(provider);
                }
                ScheduleOutput::Drop { provider, why: DropReason::Empty } => {
                    self.ledger.note_if_none(ProviderError::Useless);
                    self.give_back(provider);
                }
                ScheduleOutput::Complete => return ScheduleStep::Complete,
                ScheduleOutput::Stuck { .. } => self.stuck_since = Instant::now(),
                ScheduleOutput::Timeout(at) => return ScheduleStep::WaitUntil(at),
            }
        }
    }

    fn start_request(&mut self, provider: ProviderId, request: RequestId, ranges: UnitRanges) {
        let Some(session) = self.providers.session(provider).cloned() else {
            // Its session ended while it had nothing to do.
            let lost = self.input(ScheduleInput::ProviderLost(provider));
            return lost.unwrap_or_else(|error| tracing::debug!(%error, "a provider that is gone is not given up"));
        };
        self.requests.start(provider, request, ranges, session, Arc::clone(&self.context));
    }

    /// Takes a session with somebody who may have the content.
    fn on_session(&mut self, now: Instant, session: Session) -> Result<(), FetchError> {
        let peer = session.peer_name();
        if self.ledger.is_banned(&peer) {
            tracing::debug!("a provider that lied is not asked again");
            return Ok(());
        }
        if self.providers.are_all_lost() {
            self.back_since = now;
        }
        let known = self.schedule.providers().find(|id| self.providers.name(*id) == Some(peer));
        if let Some(id) = known {
            let was_alive = self.providers.is_alive(id);
            if !self.providers.move_to(id, session) {
                return Ok(());
            }
            self.requests.leave(id, now);
            if !was_alive {
                self.requests.end_of(id);
            }
            return self.input_at(now, ScheduleInput::ProviderMoved(id));
        }
        self.providers.forget_ended(&self.requests.busy());
        match self.schedule.handle_input(now, ScheduleInput::ProviderAdded(self.providers.next_id())) {
            Ok(()) => self.providers.add(session),
            Err(error @ ScheduleError::TooManyProviders { .. }) => {
                tracing::debug!(%error, "one more provider is left alone");
            }
            Err(error) => return Err(InternalError::from(error).into()),
        }
        Ok(())
    }

    fn on_report(&mut self, report: RequestReport) -> Result<(), AttemptError> {
        let RequestReport { provider, request, what } = report;
        match what {
            What::Progress(progress) => Ok(self.on_progress(provider, request, progress)?),
            What::Ended(ended) => match self.requests.take_ended(provider, request) {
                // The session that it left may have ended meanwhile: no reason to doubt the provider.
                Some(running) if running.has_moved() && ended.as_ref().is_err_and(ReceiveError::is_interruption) => {
                    Ok(self.input(ScheduleInput::RequestEnded { provider, request })?)
                }
                Some(_) => self.on_ended(provider, request, ended),
                None => Ok(()),
            },
        }
    }

    /// Progress counts also of a request that was given up meanwhile: it is verified, and on disk.
    fn on_progress(
        &mut self,
        provider: ProviderId,
        request: RequestId,
        progress: RequestProgress,
    ) -> Result<(), FetchError> {
        let now = Instant::now();
        match progress {
            RequestProgress::Alive => {
                self.ledger.progressed(now);
                self.input_at(now, ScheduleInput::Alive(provider))
            }
            RequestProgress::Planning => {
                self.requests.plans(provider, request);
                Ok(())
            }
            RequestProgress::Planned { have } => {
                self.requests.planned();
                self.description.by = self.providers.name(provider);
                self.on_planned(now, have)?;
                self.input_at(now, ScheduleInput::Alive(provider))
            }
            RequestProgress::Verified { units } => {
                self.on_verified(now, provider, request, units.clone());
                self.input_at(now, ScheduleInput::Verified { provider, units })
            }
            RequestProgress::ItemRefused { units, refusal } => {
                self.ledger.note(ProviderError::Refused(refusal));
                if let Some(plan) = self.context.plan.get() {
                    self.refused.add(&plan.layout, units.clone(), refusal);
                }
                self.input_at(now, ScheduleInput::ItemRefused { provider, units })
            }
        }
    }

    fn on_planned(&mut self, now: Instant, have: UnitRanges) -> Result<(), FetchError> {
        let plan = self.plan()?;
        self.ledger.found_here(self.tally.begin(&plan, &have));
        self.ledger.progressed(now);
        self.input_at(now, ScheduleInput::Planned { total_units: plan.layout.total_units(), have })
    }

    fn on_verified(&mut self, now: Instant, provider: ProviderId, request: RequestId, units: Range<u64>) {
        let gained = self.context.plan.get().map_or(0, |plan| self.tally.count(plan, units));
        self.ledger.progressed(now);
        // A request that was given up may still tell of something.
        let session = self.requests.session(request).or_else(|| self.providers.session(provider));
        if let Some(session) = session.filter(|_| gained > 0) {
            self.ledger.give(session, gained);
        }
    }

    fn on_ended(
        &mut self,
        provider: ProviderId,
        request: RequestId,
        ended: Result<(), ReceiveError>,
    ) -> Result<(), AttemptError> {
        let ask_again = ScheduleInput::RequestEnded { provider, request };
        let node = self.providers.name(provider);
        let error = match ended {
            Ok(()) => return Ok(self.input(ask_again)?),
            Err(ReceiveError::Local(error)) => return Err(AttemptError::Failed(error)),
            Err(ReceiveError::Provider(error)) => error,
        };
        match &error {
            ProviderError::Lied(what) => {
                tracing::debug!(%what, "a provider lied");
                // Whoever agreed with a false description lied as well, but is no reason to doubt it.
                let described = node.is_some() && self.unproven_describer() == node;
                if let Some(node) = node {
                    self.ban(node);
                }
                if described {
                    self.ledger.note(error);
                    return Err(AttemptError::PlanWasWrong);
                }
            }
            ProviderError::Disagrees { .. } => self.description.is_disputed = true,
            // Asked again, it may have a place; who is turned away each time is given up.
            ProviderError::Refused(Refusal::Busy) => {
                self.ledger.note(error);
                return Ok(self.input(ask_again)?);
            }
            ProviderError::Refused(_) => self.give_back(provider),
            // A provider whose file changed ends the stream; asked again, it says why.
            _ if self.providers.is_connected(provider) => {
                self.ledger.note(error);
                return Ok(self.input(ask_again)?);
            }
            _ => {
                if let Some(node) = node {
                    self.providers.lose(node);
                }
            }
        }
        self.ledger.note(error);
        self.requests.give_up(provider);
        Ok(self.input(ScheduleInput::ProviderLost(provider))?)
    }

    /// Ends what is asked of a provider, and its session unless others use that: somebody else may have its place.
    fn give_back(&mut self, provider: ProviderId) {
        self.requests.give_up(provider);
        self.providers.give_back(provider);
    }

    /// If no word comes from the provider whose answer makes the plan, that is because this side is busy with it.
    fn excuse_planner(&mut self) -> Result<(), FetchError> {
        match self.requests.planner() {
            Some(provider) => {
                self.ledger.progressed(Instant::now());
                self.input(ScheduleInput::Alive(provider))
            }
            None => Ok(()),
        }
    }

    /// How long the fetch may still go on without progress; an error once it is over.
    fn patience_left(&mut self, more_may_come: bool, are_untried: bool) -> Result<Duration, AttemptError> {
        // That all were away is nobody's silence.
        let silent_for = self.ledger.fruitless().min(self.back_since.elapsed());
        let when_silent = self.patience.when_silent.saturating_sub(silent_for);
        if !self.requests.is_empty() {
            return if when_silent.is_zero() { Err(self.in_the_end().into()) } else { Ok(when_silent) };
        }
        if self.description.is_disputed && !when_silent.is_zero() && self.unproven_describer().is_some() {
            self.doubt_describer();
            return Err(AttemptError::PlanWasWrong);
        }
        // Somebody who is away may be back, and somebody may still be found; who waits for them, and how long, is not known here.
        let waits = !self.ledger.has_setback() || self.providers.may_return() || are_untried;
        let left = match waits {
            true => Duration::MAX,
            false => self.patience.when_refused.saturating_sub(self.stuck_since.elapsed()),
        };
        match (left.is_zero() || !more_may_come, self.missing_for_good()) {
            (false, _) => Ok(left),
            (true, Some(missing)) => Err(AttemptError::Partly(missing)),
            (true, None) => Err(self.in_the_end().into()),
        }
    }

    /// How far it has come, while it runs.
    fn progress(&self) -> FetchProgress {
        FetchProgress { is_stuck: self.requests.is_empty() || self.providers.are_all_lost(), ..self.tally.progress() }
    }

    /// The items that a folder has to go without, if that is all that keeps it from being complete.
    fn missing_for_good(&self) -> Option<Vec<(usize, Refusal)>> {
        let plan = self.context.plan.get().filter(|plan| plan.format == ContentFormat::Collection)?;
        let is_worth_it = self.tally.progress().done_files > 0;
        self.refused.all_of(&plan.layout, self.schedule.missing()).filter(|_| is_worth_it)
    }

    /// Why it was all in vain.
    fn in_the_end(&mut self) -> FetchError {
        let silent = || (!self.requests.is_empty()).then_some(ProviderError::Silent);
        let last = self.ledger.take_setback().or_else(silent);
        FetchError::in_vain(self.context.job.root, last)
    }

    /// The provider on whose unproven word the plan rests, if it rests on one.
    fn unproven_describer(&self) -> Option<PeerName> {
        let plan = self.context.plan.get().filter(|plan| plan.format == ContentFormat::Blob)?;
        self.description.by.filter(|_| !self.tally.proves_size(plan))
    }

    /// Leaves out whoever described the content, unless it is only away: then another is heard first.
    fn doubt_describer(&mut self) {
        if let Some(describer) = self.description.by.filter(|describer| !self.providers.is_away(describer)) {
            self.ban(describer);
        }
    }

    /// Never asks a provider again, whatever session it comes by.
    fn ban(&mut self, provider: PeerName) {
        self.ledger.ban(provider);
        self.providers.remove(&provider);
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
