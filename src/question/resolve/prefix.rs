//! How much of a prompt can come from the prefix cache: whole blocks alone.

use crate::machine::device::DeviceClass;
use crate::question::plan::{HitRate, flag_value};

/// Tokens in a block of a scripted engine's cache.
const SCRIPTED_BLOCK_SIZE: u32 = 16;

/// Tokens in a block of the prefix cache that an engine will be built with, as vLLM 0.32 chooses it; the loaded engine is
/// asked again. `None` where it follows from a longest sequence (`max_model_len`) that is not known.
///
/// `--block-size` in `args`, else 128 on cpu, 16 on cuda, and on tpu a sixteenth of the longest sequence, rounded up to a
/// power of two, within 16 to 256, and 16 for sequences above 8192.
pub(super) fn block_size(
    device: DeviceClass,
    engine_args: &[String],
    max_model_len: Option<u64>,
    is_scripted: bool,
) -> Option<u32> {
    if is_scripted {
        return Some(SCRIPTED_BLOCK_SIZE);
    }
    if let Some(given) = flag_value(engine_args, "--block-size") {
        return given.parse().ok().filter(|tokens| *tokens > 0);
    }
    match device {
        DeviceClass::Cpu => Some(128),
        DeviceClass::Cuda => Some(16),
        DeviceClass::Tpu => Some(match max_model_len? {
            tokens @ ..=8192 => (tokens.next_power_of_two() / 16).clamp(16, 256) as u32,
            _ => 16,
        }),
    }
}

/// Why a hit rate cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unreachable {
    /// It is above the largest one.
    Above(f64),
    /// It is less than half a block, and more than nothing; with the rate of one block, if a block can come from the cache.
    BelowOneBlock(Option<f64>),
}

/// The shared prefix, in tokens, with which a prompt of `input_len` tokens comes as near to the rate as whole blocks
/// allow: within half a block. The last token of a prompt is always computed, so that its block never counts.
pub(super) fn of_hit_rate(asked: f64, input_len: u32, block_size: u32) -> Result<(u32, HitRate), Unreachable> {
    let rate = |blocks: u32| f64::from(blocks * block_size) / f64::from(input_len);
    let most = (input_len - 1) / block_size;
    // A rate is at most 1, so that this is at most as large as the prompt.
    let blocks = (asked * f64::from(input_len) / f64::from(block_size)).round() as u32;
    if blocks == 0 && asked > 0.0 {
        return Err(Unreachable::BelowOneBlock((most > 0).then(|| rate(1))));
    }
    if blocks > most {
        return Err(Unreachable::Above(rate(most)));
    }
    Ok((blocks * block_size, HitRate { asked, reachable: rate(blocks), block_size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(device: DeviceClass, args: &[&str], max_model_len: Option<u64>) -> Option<u32> {
        let args: Vec<String> = args.iter().map(|word| word.to_string()).collect();
        block_size(device, &args, max_model_len, false)
    }

    #[test]
    fn each_device_has_its_blocks() {
        assert_eq!(blocks(DeviceClass::Cpu, &[], None), Some(128));
        assert_eq!(blocks(DeviceClass::Cpu, &["--block_size=32"], None), Some(32));
        assert_eq!(blocks(DeviceClass::Cuda, &[], None), Some(16));
        assert_eq!(blocks(DeviceClass::Cuda, &["--block-size", "x"], None), None);
        let tpu = [(None, None), (Some(100), Some(16)), (Some(3000), Some(256)), (Some(10_240), Some(16))];
        for (max_model_len, expected) in tpu {
            assert_eq!(blocks(DeviceClass::Tpu, &[], max_model_len), expected, "{max_model_len:?}");
        }
    }

    #[test]
    fn a_rate_becomes_whole_blocks() {
        let reached = |asked, input_len, block| of_hit_rate(asked, input_len, block).map(|(prefix, _)| prefix);
        assert_eq!(reached(0.0, 512, 128), Ok(0));
        assert_eq!(reached(0.5, 512, 128), Ok(256));
        assert_eq!(reached(0.6, 512, 128), Ok(256), "307 tokens are nearer to two blocks than to three");
        assert_eq!(reached(0.64, 512, 128), Ok(384));
        assert_eq!(reached(1.0, 129, 128), Ok(128), "all but the token that is always computed");
        assert_eq!(reached(0.9, 512, 128), Err(Unreachable::Above(0.75)));
        assert_eq!(reached(1.0, 512, 16), Err(Unreachable::Above(496.0 / 512.0)));
        assert_eq!(reached(0.1, 512, 128), Err(Unreachable::BelowOneBlock(Some(0.25))));
        assert_eq!(reached(0.4, 100, 128), Err(Unreachable::BelowOneBlock(None)));
        assert_eq!(reached(0.9, 100, 128), Err(Unreachable::Above(0.0)));
        let (_, rate) = of_hit_rate(0.6, 512, 128).unwrap();
        assert_eq!(rate, HitRate { asked: 0.6, reachable: 0.5, block_size: 128 });
    }
}
