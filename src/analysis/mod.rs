//! What is worked out from a timeline: metrics, causes, and the verdict.

pub mod causes;
pub mod conditions;
pub mod metrics;
pub mod roofline;
pub mod verdict;
