//! Whether a loaded engine takes the points that were planned for it.

use super::SweepError;
use crate::measurement::session::Engine;
use crate::question::plan::Point;

/// What only the loaded engine knows: its final limit, beyond which vLLM would cut the output short without a word, and
/// the blocks of its cache, from which a hit rate was planned.
pub(super) fn check_point(point: &Point, engine: &Engine) -> Result<(), SweepError> {
    let refuse = |message: String| {
        let message = format!("{}: {message}", point.name);
        Err(SweepError::Config { location: point.location.0.clone(), message })
    };
    let facts = engine.facts();
    let (input_len, output_len, max_model_len) = (point.input_len, point.output_len, facts.max_model_len);
    if u64::from(input_len) + u64::from(output_len) > u64::from(max_model_len) {
        return refuse(format!(
            "input_len {input_len} and output_len {output_len} together are more than the engine's max_model_len \
             {max_model_len}; lower them, or raise --max-model-len in args"
        ));
    }
    match (point.prefix_hit_rate, facts.prefix_block_size) {
        (Some(rate), Some(blocks)) if blocks != rate.block_size => refuse(format!(
            "the prefix_hit_rate was planned for blocks of {} tokens, and the engine's cache has blocks of {blocks}; \
             say it with --block-size {blocks} in args",
            rate.block_size
        )),
        (Some(rate), None) if rate.asked > 0.0 => {
            refuse("a prefix_hit_rate needs the prefix cache, and this engine has none".to_owned())
        }
        _ => Ok(()),
    }
}
