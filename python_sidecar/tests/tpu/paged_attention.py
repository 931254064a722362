"""Ragged paged attention in plain jnp, in place of the TPU's kernel, which runs on nothing else."""

from typing import Any

import jax
import jax.numpy as jnp

MASKED = -1e30


def ragged_paged_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    kv_cache: jax.Array,
    kv_lens: jax.Array,
    page_indices: jax.Array,
    cu_q_lens: jax.Array,
    distribution: jax.Array,
    *,
    sm_scale: float = 1.0,
    **options: Any,
) -> tuple[jax.Array, jax.Array]:
    """Outputs and the cache with the new keys and values; shapes and arguments are those of tpu-inference's kernel.

    Only causal attention over the whole context, as Llama needs it, one sequence after the other.
    """
    _refuse(options)
    num_tokens, query_heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    page_size = kv_cache.shape[1]
    pages_per_sequence = page_indices.shape[0] // kv_lens.shape[0]
    num_sequences = distribution[2]

    token = jnp.arange(num_tokens)
    sequence = jnp.clip(jnp.searchsorted(cu_q_lens[1:], token, side="right"), 0, kv_lens.shape[0] - 1)
    is_token = token < cu_q_lens[num_sequences]  # what follows is padding
    position = kv_lens[sequence] - cu_q_lens[sequence + 1] + token

    pages = page_indices.reshape(-1, pages_per_sequence)
    page = pages[sequence, jnp.clip(position // page_size, 0, pages_per_sequence - 1)]
    slots = kv_cache.reshape(-1, *kv_cache.shape[2:])
    slot = jnp.where(is_token, page * page_size + position % page_size, slots.shape[0])
    slots = slots.at[slot].set(_merge(keys, values, kv_cache), mode="drop")

    grouped = queries.astype(jnp.float32).reshape(num_tokens, kv_heads, query_heads // kv_heads, head_dim)
    context = jnp.arange(pages_per_sequence * page_size)

    def attend(index: jax.Array, outputs: jax.Array) -> jax.Array:
        rows = (pages[index][:, None] * page_size + jnp.arange(page_size)).reshape(-1)
        kept = jnp.take(slots, rows, axis=0, mode="clip").astype(jnp.float32)
        kept = kept.reshape(context.size, -1, kept.shape[-1])[:, : 2 * kv_heads, :head_dim]
        kept = kept.reshape(context.size, kv_heads, 2, head_dim)
        scores = jnp.einsum("tkgd,ckd->kgtc", grouped, kept[:, :, 0]) * sm_scale
        is_seen = (context <= position[:, None]) & (context < kv_lens[index])
        weights = jax.nn.softmax(jnp.where(is_seen, scores, MASKED), axis=-1)
        mine = jnp.einsum("kgtc,ckd->tkgd", weights, kept[:, :, 1]).reshape(queries.shape)
        return jnp.where((is_token & (sequence == index))[:, None, None], mine, outputs)

    outputs = jax.lax.fori_loop(0, num_sequences, attend, jnp.zeros(queries.shape, jnp.float32))
    return outputs.astype(queries.dtype), slots.reshape(kv_cache.shape)


def _merge(keys: jax.Array, values: jax.Array, kv_cache: jax.Array) -> jax.Array:
    """Keys and values in the cache's own layout, which the kernel's module knows."""
    from tpu_inference.kernels.ragged_paged_attention.v3.kernel import merge_kv

    return merge_kv(keys, values).astype(kv_cache.dtype)


def _refuse(options: dict[str, Any]) -> None:
    """What is not built here must not be passed over in silence."""
    known = {"update_kv_cache": True, "use_causal_mask": True}
    asked = {name: value for name, value in options.items() if value is not None and known.get(name) != value}
    if asked:
        raise NotImplementedError(f"the attention of the tests does not do {asked}")
