//! What the requests of an attempt report: progress, which is counted, and their ends, by which holders are judged.
//!
//! What it is not: the receiving itself (`receive`), or the choice of the next request.

use std::{ops::Range, time::Instant};

use keyferry_proto::transfer::{
    schedule::{HolderId, Input, RequestId},
    units::UnitRanges,
};

use super::{Attempt, AttemptError, RunningRequest, Setback};
use crate::{
    content::transfer::{
        FetchError, HolderError,
        receive::{ReceiveError, RequestProgress},
    },
    net::session::Session,
};

/// One message of a request to its attempt.
pub(super) struct RequestReport {
    pub(super) holder: HolderId,
    pub(super) request: RequestId,
    pub(super) what: What,
}

/// What a request has to say.
pub(super) enum What {
    Progress(RequestProgress),
    Ended(Result<(), ReceiveError>),
}

impl Attempt {
    /// Takes a report.
    pub(super) fn on_report(&mut self, report: RequestReport) -> Result<(), AttemptError> {
        let RequestReport { holder, request, what } = report;
        match what {
            What::Progress(progress) => Ok(self.on_progress(holder, request, progress)?),
            What::Ended(ended) => {
                if self.planning == Some((holder, request)) {
                    self.planning = None;
                }
                match self.requests.remove(&request) {
                    // The session that it left may have ended meanwhile: no reason to doubt the holder.
                    Some(RunningRequest { moved: Some(_), .. }) if ended.as_ref().is_err_and(is_interruption) => {
                        Ok(self.input(Input::RequestEnded { holder, request })?)
                    }
                    Some(_) => self.on_ended(holder, request, ended),
                    None => Ok(()),
                }
            }
        }
    }

    /// Progress counts also of a request that was given up meanwhile: it is verified, and on disk.
    fn on_progress(
        &mut self,
        holder: HolderId,
        request: RequestId,
        progress: RequestProgress,
    ) -> Result<(), FetchError> {
        let now = Instant::now();
        match progress {
            RequestProgress::Alive => {
                self.ledger.last_gain = now;
                self.input_at(now, Input::Alive(holder))
            }
            RequestProgress::Planning => {
                self.planning = Some((holder, request));
                Ok(())
            }
            RequestProgress::Planned { have } => {
                self.planning = None;
                self.describer = self.holders.get(&holder).map(Session::peer);
                self.planned(now, have)?;
                self.input_at(now, Input::Alive(holder))
            }
            RequestProgress::Verified { units } => {
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
            RequestProgress::ItemRefused { units, refusal } => {
                self.ledger.setback = Some(Setback::Refused(refusal));
                self.input_at(now, Input::ItemRefused { holder, units })
            }
        }
    }

    /// Who makes the plan is busy on this side; that is not its silence.
    pub(super) fn excuse_planner(&mut self) -> Result<(), FetchError> {
        match self.planning {
            Some((holder, _)) => {
                self.ledger.last_gain = Instant::now();
                self.input(Input::Alive(holder))
            }
            None => Ok(()),
        }
    }

    /// Takes the plan's stock into account.
    pub(super) fn planned(&mut self, now: Instant, have: UnitRanges) -> Result<(), FetchError> {
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

    fn on_ended(
        &mut self,
        id: HolderId,
        request: RequestId,
        ended: Result<(), ReceiveError>,
    ) -> Result<(), AttemptError> {
        let ask_again = Input::RequestEnded { holder: id, request };
        let peer = self.holders.get(&id).map(Session::peer);
        match ended {
            Ok(()) => return Ok(self.input(ask_again)?),
            Err(ReceiveError::Local(error)) => return Err(AttemptError::Failed(error)),
            Err(ReceiveError::Holder(HolderError::Lied(what))) => {
                tracing::debug!(%what, "a holder lied");
                self.ledger.setback = Some(Setback::Failed(what.into()));
                if let Some(peer) = peer {
                    self.ban(peer);
                    // Whoever agreed with a false description lied as well, but is no reason to doubt it.
                    if self.unproven_describer() == Some(peer) {
                        return Err(AttemptError::PlanWasWrong);
                    }
                }
            }
            Err(ReceiveError::Holder(error @ HolderError::Disagrees { .. })) => {
                self.someone_disagrees = true;
                self.ledger.setback = Some(Setback::Failed(error));
            }
            Err(ReceiveError::Refused(refusal)) => {
                self.ledger.setback = Some(Setback::Refused(refusal));
            }
            Err(ReceiveError::Holder(error)) => {
                self.ledger.setback = Some(Setback::Failed(error));
                // A holder whose file changed ends the stream; asked again, it says why.
                if self.holders.get(&id).is_some_and(|session| session.end().is_none()) {
                    return Ok(self.input(ask_again)?);
                }
                self.may_return.extend(peer);
            }
        }
        self.forget_requests_of(id);
        Ok(self.input(Input::HolderLost(id))?)
    }
}

/// Whether a request ended for no fault of anybody's but the path's, or because it was told to.
fn is_interruption(error: &ReceiveError) -> bool {
    matches!(error, ReceiveError::Holder(HolderError::Connection(_)) | ReceiveError::Local(FetchError::Interrupted))
}
