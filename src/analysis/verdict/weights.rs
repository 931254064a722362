//! Whether the loaded engine's weights are what the run is labelled with.

use std::collections::BTreeMap;

use crate::measurement::timeline::{LayerCount, Weights};
use crate::question::plan::Quantization;

/// A label counts if more than this share of the weights of all layers has its format: checkpoints leave some layers,
/// and some leave all of the attention, as they were.
const LEAST_SHARE: f64 = 0.5;

/// What the matrix of a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// 16 or 32 bits.
    Full,
    Fp8,
    Fp4,
    /// Integers, or packed into integers in a way that nothing tells.
    Other,
}

/// Why a run with this label does not count, from what the engine was found to hold. `None`: it was not looked at.
pub(super) fn reasons(label: Quantization, weights: Option<&Weights>) -> Vec<String> {
    let Some(weights) = weights else {
        let word = label.as_str();
        return match label {
            Quantization::None => Vec::new(),
            _ => vec![format!("labelled {word}, and the weights of the loaded engine could not be looked at")],
        };
    };
    let layers = &weights.layers;
    if layers.is_empty() {
        return match label {
            Quantization::None => Vec::new(),
            _ => vec![format!("labelled {}, and no layer with weights was found", label.as_str())],
        };
    }
    match label {
        Quantization::None => {
            let quantized = share(layers, |layer| format_of(layer) != Format::Full);
            let reason = || misses(label, quantized, "quantized", layers);
            (quantized > 0.0).then(reason).into_iter().collect()
        }
        Quantization::Other => {
            let quantized = share(layers, |layer| format_of(layer) != Format::Full);
            let reason = || misses(label, quantized, "quantized", layers);
            (quantized == 0.0).then(reason).into_iter().collect()
        }
        Quantization::Fp8 => of_format(label, Format::Fp8, layers),
        Quantization::Fp4 => of_format(label, Format::Fp4, layers),
    }
}

fn of_format(label: Quantization, format: Format, layers: &[LayerCount]) -> Vec<String> {
    let word = label.as_str().to_uppercase();
    let in_format = |layer: &LayerCount| format_of(layer) == format;
    let there = share(layers, in_format);
    let mut reasons = Vec::new();
    if there <= LEAST_SHARE {
        reasons.push(misses(label, there, &word, layers));
    }
    let mut weight_only: BTreeMap<&str, u64> = BTreeMap::new();
    for layer in layers.iter().filter(|layer| in_format(layer)) {
        if let Some(kernel) = computes_in_16_bits(layer) {
            *weight_only.entry(kernel).or_default() += layer.count;
        }
    }
    for (kernel, count) in weight_only {
        reasons.push(format!(
            "labelled {}, and {count} layers are computed by {kernel}, which stores weights as {word} and \
             multiplies in 16 bits",
            label.as_str()
        ));
    }
    reasons
}

/// `labelled fp8, and 0 % of the weights of 16 layers are FP8: bfloat16 in 16 layers`.
fn misses(label: Quantization, there: f64, wanted: &str, layers: &[LayerCount]) -> String {
    let mut dtypes: BTreeMap<&str, u64> = BTreeMap::new();
    for layer in layers {
        *dtypes.entry(layer.dtype.as_deref().unwrap_or("unknown dtype")).or_default() += layer.count;
    }
    let found: Vec<String> = dtypes.iter().map(|(dtype, count)| format!("{dtype} in {count}")).collect();
    let all: u64 = layers.iter().map(|layer| layer.count).sum();
    format!(
        "labelled {}, and {:.1} % of the weights of {all} layers are {wanted}: {}",
        label.as_str(),
        there * 100.0,
        found.join(", ")
    )
}

/// Share of the weights in the layers that `counts`; of the layers themselves where the number of weights is not known.
fn share(layers: &[LayerCount], counts: impl Fn(&LayerCount) -> bool) -> f64 {
    let known = layers.iter().all(|layer| layer.weights.is_some_and(|weights| weights > 0));
    let size = |layer: &LayerCount| if known { layer.weights.unwrap_or_default() } else { layer.count };
    let all: u64 = layers.iter().map(size).sum();
    let counted: u64 = layers.iter().filter(|layer| counts(layer)).map(size).sum();
    if all == 0 { 0.0 } else { counted as f64 / all as f64 }
}

/// What a layer's matrix is: by its dtype, and where that is an integer, into which vLLM packs everything, by the names
/// of the classes that unpack it.
fn format_of(layer: &LayerCount) -> Format {
    let dtype = layer.dtype.as_deref().unwrap_or_default();
    let names = [&layer.method, &layer.kernel].map(|name| name.as_deref().unwrap_or_default().to_lowercase());
    let named = |word: &str| names.iter().any(|name| name.contains(word));
    match dtype {
        "float64" | "float32" | "float16" | "bfloat16" => Format::Full,
        dtype if dtype.starts_with("float8") => Format::Fp8,
        dtype if dtype.starts_with("float4") => Format::Fp4,
        _ if named("fp4") => Format::Fp4,
        _ if named("fp8") => Format::Fp8,
        // A layer that vLLM calls unquantized, and whose matrix a kernel has taken over.
        "" if named("unquantized") => Format::Full,
        _ => Format::Other,
    }
}

/// The kernel of a layer, or its method, if it is one of those of vLLM 0.32 that multiply in 16 bits whatever the weights
/// are stored as: by the words in their names, and by name where the name does not say it.
fn computes_in_16_bits(layer: &LayerCount) -> Option<&str> {
    const WORDS: [&str; 5] = ["marlin", "w4a16", "w8a16", "wna16", "emulation"];
    const NAMES: [&str; 3] = ["CPUFp8BlockScaledMMKernel", "CPUFp8PerTensorScaledMMLinearKernel", "CPU"];
    let names = [layer.kernel.as_deref(), layer.method.as_deref()].into_iter().flatten();
    names.into_iter().find(|name| {
        let lower = name.to_lowercase();
        WORDS.iter().any(|word| lower.contains(word)) || lower.ends_with("_bf16") || NAMES.contains(name)
    })
}
