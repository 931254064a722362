//! What a loaded engine holds: its parameters by dtype, and the layers that multiply by them.

use serde::{Deserialize, Serialize};

/// The weights of a loaded engine, as its tensors were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// What the tensors are of: `torch` or `jax`.
    pub source: String,
    /// Worker processes that were looked at; the counts are of all of them together.
    pub workers: u32,
    /// Parameters and buffers, by dtype.
    pub dtypes: Vec<DtypeCount>,
    /// Layers with a matrix of weights, without the embedding and the output head.
    pub layers: Vec<LayerCount>,
}

/// The parameters and buffers of one dtype.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtypeCount {
    /// The framework's own name: `bfloat16`, `float8_e4m3fn`.
    pub dtype: String,
    /// Tensors.
    pub tensors: u64,
    /// Their elements. One of a packed dtype may hold more weights than one.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tensors among them that are empty: a kernel has taken the content over in a form of its own.
    pub emptied: u64,
}

/// Layers with the same name in their block, and the same way of being computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerCount {
    /// Last part of the name: `qkv_proj`.
    pub layer: String,
    /// Dtype of the matrix; null if the layer has none that could be found.
    pub dtype: Option<String>,
    /// Class of vLLM that applies the weights; null in JAX.
    pub method: Option<String>,
    /// Kernel that vLLM selected; null if the method has none of its own, and in JAX.
    pub kernel: Option<String>,
    /// Layers.
    pub count: u64,
    /// Weights in all of them; null if their number is not known.
    pub weights: Option<u64>,
}

impl Weights {
    /// The dtypes with their shares of the bytes, and the kernels, in a line.
    pub fn in_words(&self) -> String {
        let bytes: u64 = self.dtypes.iter().map(|count| count.bytes).sum();
        let mut dtypes: Vec<&DtypeCount> = self.dtypes.iter().filter(|count| count.bytes > 0).collect();
        dtypes.sort_by_key(|count| std::cmp::Reverse(count.bytes));
        let shares = dtypes.iter().map(|count| {
            let percent = count.bytes as f64 / bytes as f64 * 100.0;
            if percent < 0.1 { format!("{} < 0.1 %", count.dtype) } else { format!("{} {percent:.1} %", count.dtype) }
        });
        let mut words = shares.collect::<Vec<_>>().join(", ") + " of the bytes";
        let matrices = in_words(self.layers.iter().map(|layer| layer.dtype.as_deref().unwrap_or("unknown")));
        if !matrices.is_empty() {
            words += &format!("; layers: {matrices}");
        }
        let kernels = in_words(self.layers.iter().filter_map(|layer| layer.kernel.as_deref()));
        if !kernels.is_empty() {
            words += &format!("; kernels: {kernels}");
        }
        words
    }
}

/// Each name once, in the order of first use.
fn in_words<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all.join(", ")
}
