//! The data plane of a run, for those who read events themselves: submit by handle, take events as they come.

use std::time::{Duration, Instant};

use bytemuck::Zeroable;

use super::SessionError;
use crate::measurement::recorder::RecorderError;
use crate::measurement::ring::protocol::{
    EndRecord, EndedRecord, FinishRecord, StepRecord, SubmitRecord, TokensRecord,
};
use crate::measurement::ring::{Consumer, Producer, RawRecord, clock_ns};

/// Both rings of an engine: requests go in by handle, events come out.
pub struct Window {
    pub(super) events: Consumer,
    pub(super) requests: Producer,
}

/// Something that the engine did. All times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Tokens of one request became known.
    Token {
        /// Handle of the request.
        request: u32,
        /// Engine step within the run, from 0.
        step: u32,
        /// Tokens in this event.
        count: u32,
        /// When the engine's tap saw them.
        emitted_ns: u64,
        /// When this process saw them.
        received_ns: u64,
    },
    /// An engine step is over.
    Step(StepRecord),
    /// A request has ended.
    Finish(FinishRecord),
    /// The run is over; nothing follows.
    Ended,
}

impl Window {
    /// Hands staged requests to the engine, all at once; returns when.
    pub fn submit(&mut self, handles: &[u32]) -> Result<u64, SessionError> {
        let submit = |request: &u32| {
            RawRecord::of(&SubmitRecord { kind: SubmitRecord::KIND, request: *request, ..Zeroable::zeroed() })
        };
        let records: Vec<RawRecord> = handles.iter().map(submit).collect();
        let submitted_ns = clock_ns();
        self.push(&records).map(|()| submitted_ns)
    }

    /// Ends the run: the engine aborts what is unfinished, and [`Event::Ended`] comes last.
    pub fn end(&mut self) -> Result<(), SessionError> {
        self.push(&[RawRecord::of(&EndRecord { kind: EndRecord::KIND, ..Zeroable::zeroed() })])
    }

    /// Appends the next events to `events`, spinning until there are some or `limit` has passed; false if none came.
    pub fn wait_for_events(&mut self, events: &mut Vec<Event>, limit: Duration) -> Result<bool, SessionError> {
        const LOOKS: u32 = 1_000;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(batch) = self.events.pop(LOOKS).map_err(RecorderError::from)? {
                let received_ns = batch.received_ns;
                for record in batch.records {
                    decode(record, received_ns, events)?;
                }
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    fn push(&mut self, records: &[RawRecord]) -> Result<(), SessionError> {
        if self.requests.push(records) { Ok(()) } else { Err(RecorderError::RequestRingFull.into()) }
    }
}

fn decode(record: &RawRecord, received_ns: u64, events: &mut Vec<Event>) -> Result<(), SessionError> {
    match record.kind() {
        TokensRecord::KIND => {
            let tokens: &TokensRecord = record.view();
            let slots = tokens.request.iter().zip(&tokens.tokens).take(tokens.count as usize);
            events.extend(slots.map(|(&request, &count)| Event::Token {
                request,
                step: tokens.step,
                count: u32::from(count),
                emitted_ns: tokens.emitted_ns,
                received_ns,
            }));
        }
        StepRecord::KIND => events.push(Event::Step(*record.view())),
        FinishRecord::KIND => events.push(Event::Finish(*record.view())),
        EndedRecord::KIND => events.push(Event::Ended),
        kind => return Err(SessionError::Protocol(format!("an event record of unknown kind {kind}"))),
    }
    Ok(())
}
