//! Charts, as SVG text without scripts or outside references.

mod itl_cdf;
mod sentinels;

pub use itl_cdf::{CdfPoint, Curve, PlotError, cdf, itl_cdf_svg};
pub use sentinels::{SentinelSeries, sentinels_svg};
