"""The capacity arithmetic, against figures that were published or logged elsewhere."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.llm.capacity import (
    GIB,
    GPUS,
    Gpu,
    Model,
    capacity,
    crossover,
    decode_ceiling,
    decode_step,
    kv_bytes,
    kv_bytes_per_token,
    model_of,
    pool_bytes,
    pool_tokens,
    prefill_rate,
    weight_bytes,
)

LLAMA = Model(params=8.03e9, layers=32, kv_heads=8, head_dim=128)
DEEPSEEK = Model(params=671e9, layers=61, kv_heads=128, head_dim=128, active=37e9, latent=576)
H100 = GPUS["H100 SXM"]


def test_weights_and_cache_of_llama_8b():
    assert weight_bytes(LLAMA) / GIB == pytest.approx(14.96, abs=0.005)
    assert weight_bytes(LLAMA, 4) == weight_bytes(LLAMA) / 4
    assert kv_bytes_per_token(LLAMA) == 131_072
    assert kv_bytes(LLAMA, 131_072) / GIB == 16.0


def test_latent_attention_is_small_and_is_not_shared_out():
    assert kv_bytes_per_token(DEEPSEEK) == 70_272
    assert kv_bytes_per_token(DEEPSEEK, 8) == 70_272


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (3, 3), (8, 1), (16, 1)])
def test_heads_are_shared_out_and_each_gpu_has_one(tp, heads):
    assert kv_bytes_per_token(LLAMA, tp) == 2 * 32 * heads * 128 * 2


def test_memory_as_the_driver_reports_it():
    assert GPUS["A100-40"].memory * 0.90 / GIB == pytest.approx(35.55, abs=0.005)


@pytest.mark.parametrize(("pool", "blocks"), [(11.12, 5693), (4.91, 2513)])
def test_blocks_of_logged_pools(pool, blocks):
    """vLLM logged 5,691 blocks, 11.12 sequences of 8,192; and 40,208 tokens."""
    tokens = pool_tokens(pool * GIB, 131_072)
    assert tokens == blocks * 16
    if pool == 11.12:
        assert tokens / 8192 == pytest.approx(11.12, abs=0.005)
        assert blocks == pytest.approx(5691, rel=0.0005)
    else:
        assert tokens == 40_208


def test_an_h100():
    pool = pool_bytes(LLAMA, H100, runtime=2 * GIB)
    assert pool / GIB == pytest.approx(50.10, abs=0.005)
    assert pool_tokens(pool, 131_072) == 410_400
    assert decode_ceiling(LLAMA, H100) == pytest.approx(208.6, abs=0.05)
    assert 1 / decode_step(LLAMA, H100, 1, 2048) == pytest.approx(143.6, abs=0.05)
    step = decode_step(LLAMA, H100, 200, 2048)
    assert step * 1000 == pytest.approx(29.7, abs=0.05)
    assert 200 / step == pytest.approx(6724, abs=0.5)
    assert prefill_rate(LLAMA, H100, mfu=1.0) == pytest.approx(61_600, rel=0.001)
    assert prefill_rate(LLAMA, H100) == pytest.approx(27_700, rel=0.001)
    assert crossover(LLAMA, H100) == pytest.approx(295, abs=0.5)


def test_all_of_it_together():
    found = capacity(LLAMA, H100, 2048)
    assert found.fits
    assert (found.tokens, math.floor(found.sequences)) == (410_400, 200)
    assert found.saturated == pytest.approx(6724, abs=0.5)
    assert found.single == pytest.approx(143.6, abs=0.05)
    assert found.kv_per_token == 131_072
    large = capacity(Model(params=70e9, layers=80, kv_heads=8, head_dim=128), H100, 2048)
    assert (large.fits, large.tokens, large.sequences) == (False, 0, 0.0)
    assert large.pool < 0
    assert capacity(Model(params=70e9, layers=80, kv_heads=8, head_dim=128), H100, 2048, tp=4).fits


def test_beyond_the_crossover_arithmetic_decides():
    slow = Gpu("slow", 80e9, 3.35e12, 10e12)
    assert decode_step(LLAMA, slow, 300, 16) == pytest.approx(300 * 2 * 8.03e9 / (10e12 * 0.45))
    assert decode_step(LLAMA, H100, 200, 16) < 200 * 2 * 8.03e9 / (10e12 * 0.45)


def test_windows_hold_no_more_than_themselves():
    gemma = Model(params=12e9, layers=48, kv_heads=8, head_dim=256, window=1024, windowed=40)
    per_layer = 2 * 8 * 256 * 2
    assert kv_bytes(gemma, 512) == 48 * 512 * per_layer
    assert kv_bytes(gemma, 8192) == (8 * 8192 + 40 * 1024) * per_layer
    assert (
        capacity(gemma, H100, 8192).sequences
        > capacity(Model(params=12e9, layers=48, kv_heads=8, head_dim=256), H100, 8192).sequences
    )


def test_a_mixture_reads_its_active_weights_only():
    dense = Model(params=671e9, layers=61, kv_heads=128, head_dim=128, latent=576)
    assert decode_ceiling(DEEPSEEK, H100, tp=16) / decode_ceiling(dense, H100, tp=16) == pytest.approx(671 / 37)
    assert weight_bytes(DEEPSEEK) == weight_bytes(dense)


@given(
    st.integers(1, 100),
    st.integers(1, 128),
    st.integers(1, 256),
    st.integers(1, 100_000),
    st.sampled_from([1, 2, 4, 8]),
)
def test_the_cache_by_counting(layers, heads, dim, length, tp):
    """The slow way: every number of every layer, head and token."""
    model = Model(1e9, layers, heads, dim, window=1000, windowed=layers // 2)
    numbers = 0
    for layer in range(layers):
        tokens = min(length, 1000) if layer < layers // 2 else length
        numbers += 2 * -(-heads // tp) * dim * tokens
    assert kv_bytes(model, length, tp) == numbers * 2


def test_models_by_their_own_files():
    llama = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    assert model_of(llama, 8.03e9) == LLAMA
    deepseek = {
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168,
        "kv_lora_rank": 512, "qk_rope_head_dim": 64, "sliding_window": None,
    }  # fmt: skip
    assert kv_bytes_per_token(model_of(deepseek, 671e9)) == 70_272
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    gemma = json.loads(
        json.dumps({"text_config": llama | {"sliding_window": 512, "layer_types": kinds * 5, "head_dim": 256}})
    )
    found = model_of(gemma, 1e9, kv_bytes=1.0)
    assert (found.window, found.windowed, found.head_dim, found.kv_bytes) == (512, 25, 256, 1.0)
    assert model_of(llama | {"sliding_window": 4096}, 1e9).windowed == 32
    assert model_of(llama | {"sliding_window": 4096, "use_sliding_window": False}, 1e9).window == 0
    with pytest.raises(ValueError, match="num_hidden_layers"):
        model_of({}, 1e9)
