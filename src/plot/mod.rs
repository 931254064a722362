//! Charts, as SVG text without scripts or outside references.

mod itl_cdf;

pub use itl_cdf::{CdfPoint, Curve, PlotError, cdf, itl_cdf_svg};
