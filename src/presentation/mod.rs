//! What is shown: reports, comparisons, charts, and files for other programs.

pub mod comparison;
pub mod exchange;
pub mod plan_text;
pub mod plot;
pub mod report;
