"""A tiny Llama on the disk: a configuration, and where they are wanted, random weights."""

import json
from pathlib import Path
from typing import Any

import numpy
from harness import MODEL
from safetensors.numpy import save_file


def write_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """The configuration of the tests' usual model, with heads as wide as the TPU's attention wants them."""
    usual = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = {**usual, "head_dim": 128, "num_key_value_heads": 2, "num_hidden_layers": 2, **changes}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return config


def write_weights(folder: Path, config: dict[str, Any]) -> int:
    """Random float32 weights. Returns how many."""
    hidden, wide, vocabulary = (config[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (vocabulary, hidden),
        "model.norm": (hidden,),
        "lm_head": (vocabulary, hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
        }
        shapes.update({f"model.layers.{layer}.{name}": shape for name, shape in parts.items()})
    random = numpy.random.default_rng(7)
    # Scaled so that every layer matters: all the tokens of a prompt then differ from those of another.
    weights = {
        f"{name}.weight": (random.standard_normal(shape) / shape[-1] ** 0.5 + (len(shape) == 1)).astype(numpy.float32)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    return sum(weight.size for weight in weights.values())
