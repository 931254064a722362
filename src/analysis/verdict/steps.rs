//! Checks of the step records against the token events: a lost event shows as a step that pushed more than arrived.

use super::Finding;
use crate::measurement::timeline::{StepEvent, Timeline};

#[derive(Default)]
struct Findings {
    repeated: Finding,
    missing: Finding,
    lost: Finding,
    too_many: Finding,
    unrecorded: Finding,
}

/// Every reason that the step records give against their run.
pub(super) fn reasons(timeline: &Timeline) -> Vec<String> {
    if timeline.steps.is_empty() {
        return if timeline.tokens.is_empty() { Vec::new() } else { vec!["no engine step was recorded".to_owned()] };
    }
    let mut findings = Findings::default();
    // Steps count from 0, so that a complete record has as many entries as its largest number says.
    let records = records_by_step(&timeline.steps, &mut findings);
    let mut received = vec![0_u64; records.len()];
    for event in &timeline.tokens {
        match event.step().and_then(|step| received.get_mut(step as usize)) {
            Some(count) => *count += 1,
            None => findings.unrecorded.add(|| format!("step {}", event.step)),
        }
    }
    let counters = &timeline.run.counters;
    // From a file these may be any numbers, so that their sum may not fit.
    let explained = [counters.discarded, counters.unexplained, counters.malformed, counters.recorder_overflow];
    let accounted_for = explained.into_iter().fold(0, u64::saturating_add);
    let mut lost = 0;
    for (step, (record, received)) in records.iter().zip(received).enumerate() {
        let Some(record) = record else {
            findings.missing.add(|| format!("step {step}"));
            continue;
        };
        let pushed = u64::from(record.token_events);
        if received > pushed {
            findings.too_many.add(|| format!("step {step}, {pushed} pushed and {received} received"));
        } else if received < pushed {
            lost += pushed - received;
            findings.lost.add(|| format!("step {step}, {pushed} pushed and {received} received"));
        }
    }
    if lost <= accounted_for {
        findings.lost = Finding::default();
    }
    findings.reasons(records.len() as u64, timeline.tokens.len() as u64)
}

/// The record of each step. Sized by the records there are, not by the numbers they carry, which may be wrong.
fn records_by_step<'a>(steps: &'a [StepEvent], findings: &mut Findings) -> Vec<Option<&'a StepEvent>> {
    let mut records: Vec<Option<&StepEvent>> = vec![None; steps.len()];
    for step in steps {
        match records.get_mut(step.step as usize) {
            Some(place @ None) => *place = Some(step),
            Some(Some(_)) => findings.repeated.add(|| format!("step {}", step.step)),
            // A number beyond the count of records: one below it is missing, and is found as such.
            None => {}
        }
    }
    records
}

impl Findings {
    fn reasons(self, steps: u64, events: u64) -> Vec<String> {
        let found = [
            (self.repeated, steps, "engine steps", "were recorded twice"),
            (self.missing, steps, "engine steps", "have no record"),
            (self.lost, steps, "engine steps", "lost token events"),
            (self.too_many, steps, "engine steps", "have more token events than they pushed"),
            (self.unrecorded, events, "token events", "come from a step without a record"),
        ];
        found.into_iter().filter_map(|(finding, of, what, did)| finding.reason(of, what, did)).collect()
    }
}
