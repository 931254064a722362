//! What makes a run fail, and what becomes of the engine, the sidecar and the point then.

use super::{Attempt, Outcome, Seat, Sidecar, Station, Sweep, SweepError, SweepObserver, without_events};
use crate::measurement::session::SessionError;

/// By what an engine that found too little memory is known, in the words of Python, torch and vLLM.
const MEMORY_SIGNS: [&str; 5] =
    ["memoryerror", "out of memory", "allocate memory", "available memory on node", "free memory on device"];

/// Why a run was not measured.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no engine to measure it on.
    NotLoaded(SessionError),
    /// vLLM refuses what the point asks; the engine is sound.
    Refused(SessionError),
    /// The engine, or what belongs to it, broke.
    Failed(SessionError),
}

impl Trouble {
    /// Whether it may be gone in a fresh engine. What vLLM says no to, it says no to again; memory may have become free.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Trouble::Refused(_) => false,
            Trouble::NotLoaded(SessionError::EngineFailed { stage, kind, message, .. }) if stage != "run" => {
                let words = format!("{kind} {message}").to_lowercase();
                MEMORY_SIGNS.iter().any(|sign| words.contains(sign))
            }
            Trouble::NotLoaded(_) | Trouble::Failed(_) => true,
        }
    }

    pub(super) fn first_line(&self) -> String {
        first_line(self.error())
    }

    /// What the screen has not said yet: the line of a run that has failed says why.
    pub(super) fn unsaid(&self) -> String {
        match self {
            Trouble::NotLoaded(err) => first_line(err) + "; ",
            Trouble::Refused(_) | Trouble::Failed(_) => String::new(),
        }
    }

    fn error(&self) -> &SessionError {
        match self {
            Trouble::NotLoaded(err) | Trouble::Refused(err) | Trouble::Failed(err) => err,
        }
    }
}

/// The line that names the cause: what follows, the end of a log perhaps, need not be kept with each run.
pub(super) fn first_line(err: &SessionError) -> String {
    err.to_string().lines().next().unwrap_or_default().to_owned()
}

impl<O: SweepObserver> Sweep<'_, O> {
    /// Ends what is left of a broken engine, and replaces a sidecar that does not answer any more.
    pub(super) async fn clear_away(&mut self, seat: &mut Seat<'_>, trouble: &Trouble) -> Result<(), SweepError> {
        if matches!(trouble, Trouble::Refused(_)) {
            return Ok(());
        }
        self.last_token_ns = None;
        seat.has_failed = true;
        if let Some(engine) = seat.engine.take() {
            // A fork server that cannot do it is replaced below.
            let _ = engine.kill(&mut self.station().sidecar).await;
        }
        if !self.station().sidecar.is_lost() {
            return Ok(());
        }
        self.station().sidecar.kill().await;
        if self.is_interrupted().await {
            return Err(SweepError::Interrupted);
        }
        let Station { options, sidecar, .. } = &mut self.stations[self.at];
        self.observer.remark(&format!("{}starting another sidecar", trouble.unsaid()));
        let started = tokio::select! {
            biased;
            () = self.observer.leave() => return Err(SweepError::Interrupted),
            started = Sidecar::start(options) => started,
        };
        *sidecar = started.map_err(SweepError::Start)?;
        Ok(())
    }

    /// Measures the point no more; without an engine none of its epoch. A sweep of one engine that cannot be loaded has
    /// nothing to go on with.
    pub(super) fn give_up(
        &mut self,
        seat: &Seat<'_>,
        attempt: Attempt<'_>,
        trouble: Trouble,
    ) -> Result<(), SweepError> {
        let cause = trouble.first_line();
        match trouble {
            Trouble::NotLoaded(err) if !self.has_measured && self.plan.epochs.len() == 1 => Err(SweepError::Start(err)),
            Trouble::NotLoaded(err) => {
                let attempt = Attempt { repeat: attempt.head.run.repeat, retry_of: None, ..attempt };
                self.announce(attempt);
                let failed = without_events(self.record(seat.epoch, attempt, 0.0), Outcome::Failed(err.to_string()));
                self.observer.run_ends(failed).map_err(SweepError::Results)?;
                // The engine may have another turn.
                let of_engine = self.plan.epochs.iter().filter(|epoch| epoch.key == seat.epoch.key);
                let points = of_engine.flat_map(|epoch| &epoch.points);
                self.given_up.extend(points.map(|point| (point.point.clone(), cause.clone())));
                Ok(())
            }
            Trouble::Refused(_) => {
                self.given_up.insert(attempt.head.run.point.point.clone(), cause);
                Ok(())
            }
            Trouble::Failed(_) => {
                let reason = format!("this point failed, and again in a fresh engine: {cause}");
                self.given_up.insert(attempt.head.run.point.point.clone(), reason);
                Ok(())
            }
        }
    }
}
