//! How vLLM is told in which format to load the weights.

use serde::{Deserialize, Serialize};

/// What makes vLLM load the weights in the format that was asked for, beside the engine's own arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuantizationSwitches {
    /// For vLLM's own parser, behind everything else.
    pub args: Vec<String>,
    /// For the environment of the engine's process.
    pub env: Vec<(String, String)>,
}

impl QuantizationSwitches {
    /// Whether vLLM needs to be told nothing.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty() && self.env.is_empty()
    }
}
