"""`[capacity.NAME]` in numbers, against those of the spec and others worked by hand."""

import json

import pytest

from mainspring.config.settings import load_settings
from mainspring.errors import ConfigError
from mainspring.llm.capacity import GIB, GPUS
from mainspring.llm.sizing import gpu_named, sizings

LLAMA = {
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
    "max_position_embeddings": 131_072, "torch_dtype": "bfloat16",
}  # fmt: skip
FULL = {"gpu": '"H100 SXM"', "config": '"llama/config.json"', "params": "8.03e9", "length": "2048"}


def settings_of(folder, file=LLAMA, name="chat", **given):
    (folder / "llama").mkdir(exist_ok=True)
    (folder / "llama" / "config.json").write_text(file if isinstance(file, str) else json.dumps(file))
    lines = [f"capacity.{name}.{key} = {value}\n" for key, value in given.items()]
    (folder / "mainspring.toml").write_text('app = "a:app"\n' + "".join(lines))
    return load_settings(folder)


def sizing_of(folder, file=LLAMA, **given):
    (found,) = sizings(settings_of(folder, file, **given), ["chat"])
    return found


def test_an_h100_as_in_the_spec(tmp_path):
    one = sizing_of(tmp_path, **FULL)
    assert (one.llm, one.gpu, one.gpus, one.weights, one.cache, one.length) == (
        "chat", "H100 SXM", 1, "bf16", "bf16", 2048,
    )  # fmt: skip
    assert one.memory == 72e9
    assert one.runtime == 2 * GIB
    assert one.found.weights / GIB == pytest.approx(14.96, abs=0.005)
    assert one.found.kv_per_token == 131_072
    assert one.found.pool / GIB == pytest.approx(50.10, abs=0.005)
    assert one.found.tokens == 410_400
    assert one.found.sequences == pytest.approx(200.39, abs=0.005)
    assert one.found.ceiling == pytest.approx(208.6, abs=0.05)
    assert one.found.single == pytest.approx(143.6, abs=0.05)
    assert one.found.saturated == pytest.approx(6724, abs=0.5)
    assert one.found.step * 1000 == pytest.approx(29.7, abs=0.05)
    assert one.found.prefill == pytest.approx(27_700, rel=0.001)
    assert one.prefill_ceiling == pytest.approx(61_600, rel=0.001)
    assert one.found.crossover == pytest.approx(295, abs=0.5)


def test_what_other_weights_would_leave(tmp_path):
    """72e9 - 8.03e9 x 1 or 0.5625 - 2 GiB, in blocks of 16 tokens of 131,072 bytes, over 2,048."""
    one = sizing_of(tmp_path, **FULL)
    assert one.sequences["fp8"] == 471_664 / 2048
    assert one.sequences["int4"] == 498_464 / 2048
    fp8 = sizing_of(tmp_path, **FULL, weights='"fp8"', cache='"fp8"')
    assert set(fp8.sequences) == {"bf16", "int4"}
    assert (fp8.found.kv_per_token, fp8.found.weights) == (65_536, 8.03e9)
    assert fp8.found.ceiling == pytest.approx(3.35e12 / 8.03e9)


def test_several_gpus_a_measured_runtime_and_a_share(tmp_path):
    """On each of 4: 70.6e9 x 2 / 4 = 35.3e9 of weights, 2 heads of 8: 2 x 80 x 2 x 128 x 2 = 81,920 bytes a token."""
    config = LLAMA | {"num_hidden_layers": 80, "num_attention_heads": 64, "hidden_size": 8192}
    given = FULL | {"params": "70.6e9", "gpu": '"a100-80"'}
    alone = sizing_of(tmp_path, config, **given)
    assert not alone.found.fits
    assert alone.found.pool < 0
    four = sizing_of(tmp_path, config, **given, gpus="4", runtime="4.0", utilisation="0.95")
    assert (four.gpu, four.gpus, four.found.weights, four.found.kv_per_token) == ("A100-80", 4, 35.3e9, 81_920)
    assert four.found.pool == 76e9 - 35.3e9 - 4 * GIB
    assert four.found.tokens == int((76e9 - 35.3e9 - 4 * GIB) / (16 * 81_920)) * 16
    assert four.found.ceiling == pytest.approx(2.039e12 / 35.3e9)
    assert four.notes == ()
    assert "capacity.chat.runtime" in alone.notes[0]


def test_the_length_and_the_weights_are_the_files_when_nothing_is_said(tmp_path):
    given = {key: FULL[key] for key in ("gpu", "config")}
    (tmp_path / "llama").mkdir()
    index = tmp_path / "llama" / "model.safetensors.index.json"
    index.write_text('{"metadata": {"total_size": 16060000000}}')
    one = sizing_of(tmp_path, **given)
    assert one.length == 131_072
    assert one.found.weights == 16.06e9
    assert sizing_of(tmp_path, LLAMA | {"torch_dtype": "float32"}, **given).found.weights == 8.03e9
    for unknown in ({"torch_dtype": "int8"}, {"quantization_config": {}}):
        with pytest.raises(ConfigError, match=r"capacity\.chat\.params is not said"):
            sizing_of(tmp_path, LLAMA | unknown, **given)
    index.write_text("{}")
    with pytest.raises(ConfigError, match=r"capacity\.chat\.params is not said"):
        sizing_of(tmp_path, **given)


def test_experts_are_asked_after(tmp_path):
    config = LLAMA | {"num_local_experts": 8}
    assert "capacity.chat.active" in sizing_of(tmp_path, config, **FULL).notes[0]
    told = sizing_of(tmp_path, config, **FULL, active="1e9")
    assert told.found.ceiling == pytest.approx(3.35e12 / 2e9)
    assert not [note for note in told.notes if "experts" in note]


@pytest.mark.parametrize("name", ["H100 SXM", "h100-sxm", "h100sxm", "A100-80", "a100 80", "l4", "L40S", "H200"])
def test_names_of_gpus(name):
    assert gpu_named(name) in GPUS.values()


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("h100-80", "did you mean 'H100 SXM'?"),
        ("NVIDIA H100 80GB HBM3", "did you mean 'H100 SXM'?"),
        ("a100", "did you mean 'A100-80' or 'A100-40'?"),
        ("L40", "did you mean 'L40S'?"),
        ("tpu", "known: H100 SXM, H200, A100-80, A100-40, L4, L40S"),
        ("", "known: H100 SXM, H200, A100-80, A100-40, L4, L40S"),
    ],
)
def test_unknown_gpus_are_refused_with_the_nearest(name, fix):
    with pytest.raises(ConfigError) as told:
        gpu_named(name, "mainspring.toml:2")
    assert (told.value.code, told.value.fix, told.value.origin) == ("MS-3087", fix, "mainspring.toml:2")


@pytest.mark.parametrize("key", ["gpu", "config", "params", "length"])
def test_what_is_not_said_is_asked_for(tmp_path, key):
    config = {name: value for name, value in LLAMA.items() if name != "max_position_embeddings"}
    with pytest.raises(ConfigError) as told:
        sizing_of(tmp_path, config, **{name: value for name, value in FULL.items() if name != key})
    assert told.value.code == "MS-3086"
    assert told.value.what == f"capacity.chat.{key} is not said"
    assert told.value.fix.startswith(f"capacity.chat.{key} = ")


@pytest.mark.parametrize(
    ("config", "why"), [("{", "no JSON"), ("[]", "no JSON object"), ({"a": 1}, "num_hidden_layers")]
)
def test_a_file_that_describes_no_model(tmp_path, config, why):
    with pytest.raises(ConfigError) as told:
        sizing_of(tmp_path, config, **FULL)
    assert told.value.code == "MS-3088"
    assert why in told.value.why
    assert told.value.origin.startswith("mainspring.toml:")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError) as told:
        sizing_of(tmp_path, **(FULL | {"config": '"none.json"'}))
    assert told.value.code == "MS-3088"
    assert "No such file" in told.value.why


def test_a_capacity_of_nothing_declared(tmp_path):
    settings = settings_of(tmp_path, name="chatt", **FULL)
    with pytest.raises(ConfigError) as told:
        sizings(settings, ["chat"])
    assert (told.value.code, told.value.fix) == ("MS-3085", "did you mean 'chat'?")
    with pytest.raises(ConfigError) as told:
        sizings(settings, [])
    assert told.value.fix == 'declare it: app.llm("chatt")'


def test_wrong_values_are_refused_when_they_are_read(tmp_path):
    for key, value, code in (("weights", '"fp7"', "MS-3006"), ("gpus", "0", "MS-3006"), ("gpuss", "1", "MS-3004")):
        with pytest.raises(ConfigError) as told:
            settings_of(tmp_path, **(FULL | {key: value}))
        assert told.value.code == code
    assert "capacity.chat.gpu" in told.value.fix
