//! Charts: their data, and the same drawn as SVG text without scripts or outside references, and as PNG.

mod chart;
mod png;
mod scaled;
mod svg;
mod thin;

pub use chart::{Axis, Chart, Grid, Marks, Scale, Series};
pub use png::{Rasterizer, png};
pub use svg::{PlotError, svg};
pub use thin::{CdfPoint, cdf, extremes, scatter};
