//! A chart's SVG as PNG.

use std::sync::Arc;

use resvg::{tiny_skia, usvg};

use super::{Chart, PlotError};

/// The letters: a server may have no fonts of its own.
const FONT: &[u8] = include_bytes!("../../../third_party/dejavu/DejaVuSans.ttf");

/// Pixels for each unit of the SVG: sharp on paper, too.
const PIXELS: f32 = 2.0;

/// What all images need, made once.
pub struct Rasterizer(usvg::Options<'static>);

impl Default for Rasterizer {
    fn default() -> Rasterizer {
        Rasterizer::new()
    }
}

impl Rasterizer {
    /// With the font that the program carries.
    pub fn new() -> Rasterizer {
        let mut options = usvg::Options::default();
        let fonts = Arc::make_mut(&mut options.fontdb);
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Rasterizer(options)
    }
}

/// The image of a chart that was drawn as `svg`.
///
/// # Errors
/// [`PlotError`].
pub fn png(rasterizer: &Rasterizer, chart: &Chart, svg: &str) -> Result<Vec<u8>, PlotError> {
    let failed = |problem: String| PlotError { chart: chart.id, problem };
    let tree = usvg::Tree::from_str(svg, &rasterizer.0).map_err(|error| failed(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(PIXELS).ok_or_else(|| failed("it has no size".to_owned()))?;
    let mut image = tiny_skia::Pixmap::new(size.width(), size.height())
        .ok_or_else(|| failed(format!("no room for {} x {} pixels", size.width(), size.height())))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(PIXELS, PIXELS), &mut image.as_mut());
    image.encode_png().map_err(|error| failed(error.to_string()))
}
