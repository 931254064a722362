//! What a dense decoder of Llama's form costs: parameters, operations and bytes.

use serde_json::Value;

use super::Chunk;

/// Model types whose layers are Llama's: four projections of attention, a gated MLP of three, two norms, no biases.
const MODEL_TYPES: [&str; 2] = ["llama", "mistral"];

/// The dimensions of a model, from its `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `num_hidden_layers`.
    pub layers: u64,
    /// `hidden_size`.
    pub hidden: u64,
    /// `intermediate_size`.
    pub intermediate: u64,
    /// `num_attention_heads`.
    pub heads: u64,
    /// `num_key_value_heads`.
    pub kv_heads: u64,
    /// `head_dim`.
    pub head_dim: u64,
    /// `vocab_size`.
    pub vocab: u64,
}

/// Bytes that each number takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// A weight of a layer's matrices.
    pub matrix_bytes: u64,
    /// Any other weight: norms and the output head.
    pub other_bytes: u64,
    /// A number in the KV cache.
    pub kv_bytes: u64,
}

/// What a step needs at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations, a multiplication and an addition as two.
    pub operations: f64,
    /// Bytes read from memory and written to it.
    pub bytes: f64,
}

impl Shape {
    /// Reads the dimensions.
    ///
    /// # Errors
    /// Why the costs of this model are not known: a key is missing, or its layers are not Llama's.
    pub fn of_config(config: &Value) -> Result<Shape, String> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("?");
        if !MODEL_TYPES.contains(&model_type) {
            return Err(format!("the costs of the model type `{model_type}` are not known"));
        }
        let is_set = |key: &str| config.get(key).is_some_and(|value| !value.is_null() && value != false);
        if let Some(key) = ["attention_bias", "mlp_bias", "sliding_window"].into_iter().find(|key| is_set(key)) {
            return Err(format!("the costs of a model with `{key}` are not known"));
        }
        let given = |key: &str| config.get(key).and_then(Value::as_u64).filter(|value| *value > 0);
        let needed = |key: &str| given(key).ok_or_else(|| format!("the model's configuration has no `{key}`"));
        let (hidden, heads) = (needed("hidden_size")?, needed("num_attention_heads")?);
        Ok(Shape {
            layers: needed("num_hidden_layers")?,
            hidden,
            intermediate: needed("intermediate_size")?,
            heads,
            // As transformers reads a configuration without them.
            kv_heads: given("num_key_value_heads").unwrap_or(heads),
            head_dim: given("head_dim").unwrap_or(hidden / heads),
            vocab: needed("vocab_size")?,
        })
    }

    /// Weights of the layers' matrices: `layers * (hidden * head_dim * (2 heads + 2 kv_heads) + 3 hidden * intermediate)`.
    pub fn matrix_weights(&self) -> u64 {
        let attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads);
        self.layers * (attention + 3 * self.hidden * self.intermediate)
    }

    /// Weights of the output head: `vocab * hidden`. Tied to the input embedding or not, it is read as a matrix.
    pub fn head_weights(&self) -> u64 {
        self.vocab * self.hidden
    }

    /// Weights of the norms: two a layer, and the last one.
    pub fn norm_weights(&self) -> u64 {
        (2 * self.layers + 1) * self.hidden
    }

    /// Numbers that a token takes in the KV cache: a key and a value in each layer, `2 layers * kv_heads * head_dim`.
    pub fn kv_numbers(&self) -> u64 {
        2 * self.layers * self.kv_heads * self.head_dim
    }

    /// What a step needs that computes `chunks` and samples `sampled` tokens.
    ///
    /// Operations, of a chunk of t tokens with c before it in the cache:
    /// - matrices: `2 * matrix_weights * t`;
    /// - attention, scores and values: `4 * layers * heads * head_dim * (c t + t (t + 1) / 2)`, as the i-th token looks at c + i;
    ///
    /// and for the whole step the head, `2 * head_weights * sampled`: only sampled tokens get logits.
    ///
    /// Bytes: all weights but the input embedding, once (the head only if a token is sampled); `kv_numbers * c` read
    /// for each chunk and `kv_numbers * t` written. Activations stay in caches, and count nothing.
    pub fn work(&self, sizes: &Sizes, chunks: &[Chunk], sampled: u64) -> Work {
        if chunks.is_empty() {
            return Work::default();
        }
        let head = if sampled > 0 { self.head_weights() } else { 0 };
        let (mut operations, mut kv_tokens) = (2 * self.head_weights() * sampled, 0);
        for Chunk { before, tokens } in chunks {
            let looks = before * tokens + tokens * (tokens + 1) / 2;
            operations += 2 * self.matrix_weights() * tokens + 4 * self.layers * self.heads * self.head_dim * looks;
            kv_tokens += before + tokens;
        }
        let weights = self.matrix_weights() * sizes.matrix_bytes + (self.norm_weights() + head) * sizes.other_bytes;
        let bytes = weights + kv_tokens * self.kv_numbers() * sizes.kv_bytes;
        Work { operations: operations as f64, bytes: bytes as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// One layer, hidden 4, two heads of 2 with one KV head, MLP 6, vocabulary 10.
    const TINY: Shape = Shape { layers: 1, hidden: 4, intermediate: 6, heads: 2, kv_heads: 1, head_dim: 2, vocab: 10 };
    const F32: Sizes = Sizes { matrix_bytes: 4, other_bytes: 4, kv_bytes: 4 };

    #[test]
    fn weights_by_hand() {
        // q 4x4, k 4x2, v 4x2, o 4x4: 48. Gate, up and down 4x6 each: 72.
        assert_eq!(TINY.matrix_weights(), 120);
        assert_eq!((TINY.head_weights(), TINY.norm_weights(), TINY.kv_numbers()), (40, 12, 4));
    }

    #[test]
    fn a_prompt_of_three_by_hand() {
        let work = TINY.work(&F32, &[Chunk { before: 0, tokens: 3 }], 1);
        // Matrices 2 x 120 x 3; attention 4 x 1 x 2 x 2 x (1 + 2 + 3); head 2 x 40.
        assert_eq!(work.operations, 720.0 + 96.0 + 80.0);
        // 172 weights of 4 bytes; three tokens of 4 numbers of 4 bytes written.
        assert_eq!(work.bytes, 688.0 + 48.0);
    }

    #[test]
    fn a_decode_step_of_two_by_hand() {
        let chunks = [Chunk { before: 3, tokens: 1 }, Chunk { before: 7, tokens: 1 }];
        let work = TINY.work(&F32, &chunks, 2);
        // Each: matrices 240, head 80; attention 16 x 4 and 16 x 8.
        assert_eq!(work.operations, 2.0 * 320.0 + 64.0 + 128.0);
        // Weights once; 10 tokens read and 2 written, 16 bytes each.
        assert_eq!(work.bytes, 688.0 + 192.0);
    }

    #[test]
    fn a_chunk_that_samples_nothing_does_not_read_the_head() {
        let work = TINY.work(&F32, &[Chunk { before: 2, tokens: 2 }], 0);
        // Attention: the two tokens look at 3 and 4.
        assert_eq!(work.operations, 480.0 + 16.0 * 7.0);
        assert_eq!(work.bytes, (120.0 + 12.0) * 4.0 + 4.0 * 16.0);
        assert_eq!(TINY.work(&F32, &[], 0), Work::default());
    }

    #[test]
    fn in_two_chunks_a_prompt_takes_the_same_operations_and_reads_the_weights_twice() {
        let whole = TINY.work(&F32, &[Chunk { before: 0, tokens: 5 }], 1);
        let first = TINY.work(&F32, &[Chunk { before: 0, tokens: 2 }], 0);
        let second = TINY.work(&F32, &[Chunk { before: 2, tokens: 3 }], 1);
        assert_eq!(first.operations + second.operations, whole.operations);
        assert_eq!(first.bytes + second.bytes - whole.bytes, (120.0 + 12.0) * 4.0 + 2.0 * 16.0);
    }

    #[test]
    fn quantized_matrices_leave_norms_and_head_as_they_are() {
        let fp8 = Sizes { matrix_bytes: 1, other_bytes: 2, kv_bytes: 1 };
        let work = TINY.work(&fp8, &[Chunk { before: 1, tokens: 1 }], 1);
        assert_eq!(work.bytes, 120.0 + 52.0 * 2.0 + 2.0 * 4.0);
    }

    #[test]
    fn llama_70b_has_its_published_size() {
        let config = json!({"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "attention_bias": false});
        let shape = Shape::of_config(&config).unwrap();
        // With the input embedding, which is as large as the head: 70.55 billion.
        let all = shape.matrix_weights() + shape.norm_weights() + 2 * shape.head_weights();
        assert_eq!(all, 70_553_706_496);
        assert_eq!(shape.kv_numbers(), 2 * 80 * 8 * 128);
    }

    #[test]
    fn a_model_of_another_form_is_not_guessed_at() {
        let refused = |config: Value| Shape::of_config(&config).unwrap_err();
        assert!(refused(json!({"model_type": "mixtral"})).contains("`mixtral`"));
        assert!(refused(json!({"model_type": "llama", "attention_bias": true})).contains("`attention_bias`"));
        assert!(refused(json!({"model_type": "mistral", "sliding_window": 4096})).contains("`sliding_window`"));
        assert!(refused(json!({"model_type": "llama"})).contains("no `hidden_size`"));
        assert!(refused(json!({})).contains("`?`"));
    }
}
