"""The pure parts of the local engine: tools in text, schemas, model files, threads."""

import contextlib
import itertools
import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.llamacpp.gguf import read_model_file
from mainspring.adapters.llamacpp.schemas import compact, misfit_of, unsupported
from mainspring.adapters.llamacpp.threads import physical_cores, quota_of, usable_threads
from mainspring.adapters.llamacpp.tools import ForcedCall, TaggedCalls, call_schema, told_in_prompt
from mainspring.ports.llm import Message, Text, Tool, ToolCall, ToolChoice
from mainspring.testing.llm import CLOCK, WEATHER, calls_of, chat, text_of
from mainspring.upstream.faults import BrokenError

PLACES = st.lists(st.integers(0, 300), max_size=10)


def pieces(text, places):
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(at)]


def read(reader, text, places=(), reason="stop"):
    events = [event for piece in pieces(text, places) for event in reader.feed(Text(piece, 1))]
    return [*events, *reader.finish(reason, 0)], reader.reason(reason)


# -- calls between tags ---------------------------------------------------------------------------------------------


@given(PLACES)
def test_calls_between_tags_for_any_cut(places):
    text = (
        'Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "<Rome>", "days": 2}}\n</tool_call> and '
        '<tool_call>{"name": "clock"}</tool_call> so'
    )
    events, reason = read(TaggedCalls((WEATHER, CLOCK)), text, places)
    assert text_of(events) == "Let me see.  and  so"
    assert [(name, json.loads(given)) for _, name, given in calls_of(events).values()] == [
        ("weather", {"city": "<Rome>", "days": 2}),
        ("clock", {}),
    ]
    assert len({id for id, _, _ in calls_of(events).values()}) == 2
    assert reason == "tool_calls"


@pytest.mark.parametrize(
    "text",
    [
        "no call at all < tool_call >",
        "ends like one <tool_ca",
        "<tool_call>no JSON</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call> after',
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "weather", "argu',
    ],
)
@given(PLACES)
def test_what_is_no_call_stays_text(text, places):
    events, reason = read(TaggedCalls((WEATHER,)), text, places)
    assert (text_of(events), calls_of(events), reason) == (text, {}, "stop")


def test_a_call_whose_end_is_the_end():
    events, reason = read(TaggedCalls((CLOCK,)), '<tool_call>\n{"name": "clock", "arguments": {}}\n')
    assert ([call[1:] for call in calls_of(events).values()], reason) == ([("clock", "{}")], "tool_calls")
    cut, reason = read(TaggedCalls((CLOCK,)), '<tool_call>{"name": "clock"}</tool_call> and', reason="length")
    assert (len(calls_of(cut)), reason) == (1, "length")


# -- a call by a grammar --------------------------------------------------------------------------------------------


@given(PLACES, st.sampled_from(["", " ", "\n"]), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_a_forced_call_for_any_cut(places, space, arguments):
    anything = Tool("any", "", {"type": "object"})
    told = json.dumps(arguments, ensure_ascii=False)
    text = f'{space}{{{space}"name":{space}"any",{space}"arguments":{space}{told}{space}}}{space}'
    events, reason = read(ForcedCall((anything,)), text, places)
    ((_, name, given_),) = calls_of(events).values()
    assert (name, json.loads(given_), reason) == ("any", arguments, "tool_calls")
    assert text_of(events) == ""


def test_a_forced_call_that_is_cut_or_unfit():
    events, reason = read(ForcedCall((WEATHER,)), '{"name":"weather","arguments":{"city":"Ro', reason="length")
    assert [call[1:] for call in calls_of(events).values()] == [("weather", '{"city":"Ro')]
    assert reason == "length"
    for text in ("Sorry, no.", '{"name":"weather","arguments":{"city":3}}', '{"name":"other","arguments":{}}'):
        with pytest.raises(BrokenError):
            read(ForcedCall((WEATHER,)), text)


def test_the_schema_of_a_call():
    request = msgspec.structs.replace(chat("x"), tools=(WEATHER, CLOCK), choice=ToolChoice("named", "clock"))
    assert call_schema(request)["properties"]["name"] == {"const": "clock"}
    either = call_schema(msgspec.structs.replace(request, choice=ToolChoice("required")))
    assert [one["properties"]["name"]["const"] for one in either["anyOf"]] == ["weather", "clock"]
    assert either["x-guidance"]["whitespace_flexible"] is False


def test_tools_in_the_prompt():
    request = msgspec.structs.replace(chat("x"), tools=(WEATHER,))
    system, user = told_in_prompt(request)
    assert (system.role, user) == ("system", Message("user", ("x",)))
    assert '"name":"weather"' in system.text
    turns = (
        Message("system", ("Be kind.",)),
        Message("user", ("x",)),
        Message("assistant", ("Well.",), calls=(ToolCall("1", "weather", '{"city":"R"}'), ToolCall("2", "clock", ""))),
        Message("tool", ("25",), answers="1"),
    )
    system, _, called, answered = told_in_prompt(msgspec.structs.replace(request, messages=turns))
    assert system.text.startswith("Be kind.\n\n")
    assert called.text.startswith("Well.\n<tool_call>\n")
    events, _ = read(TaggedCalls((WEATHER, CLOCK)), called.text)
    assert [call[1:] for call in calls_of(events).values()] == [("weather", '{"city":"R"}'), ("clock", "{}")]
    assert answered == Message("user", ("<tool_response>\n25\n</tool_response>",))
    none = msgspec.structs.replace(request, choice=ToolChoice("none"))
    assert told_in_prompt(none) == request.messages


# -- schemas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({}, ""),
        ({"type": "object", "properties": {"not": {"type": "string"}, "if": {"enum": [1]}}}, ""),
        ({"const": {"not": 1}}, ""),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": False, "prefixItems": [{"type": "null"}]}}},
            "",
        ),
        ({"format": "date"}, ""),
        ({"title": "x", "description": "y", "examples": [{"not": 1}]}, ""),
        ({"not": {}}, "'not' at $"),
        ({"if": {}, "then": {}}, "'if' at $"),
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "'uniqueItems' at $.properties.a.items"),
        ({"anyOf": [{}, {"contains": {}}]}, "'contains' at $.anyOf[1]"),
        ({"$defs": {"a": {"dependentRequired": {}}}}, "'dependentRequired' at $.$defs.a"),
        ({"format": "uri"}, "format 'uri' at $"),
        ({"properties": {"a": {"pattern": "^(?!b)"}}}, "pattern at $.properties.a"),
        ({"pattern": r"(a)\1"}, "pattern at $"),
        ({"patternProperties": {"(?<=a)b": {}}}, "patternProperties at $"),
        ({"pattern": r"^\d{2}(?:-[a-z]+)?$"}, ""),
        ({"$ref": "https://elsewhere/x.json"}, "outside of it"),
        ({"type": "what"}, "no valid JSON schema"),
        ({"minimum": "3"}, "no valid JSON schema"),
    ],
)
def test_what_cannot_be_enforced(schema, told):
    assert told in unsupported(schema)
    assert bool(unsupported(schema)) == bool(told)


def test_what_fits():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert misfit_of(schema, {"a": 1}) == ""
    assert "integer" in misfit_of(schema, {"a": "x"})
    assert compact({"type": "object"})["x-guidance"]["whitespace_flexible"] is False


# -- model files ----------------------------------------------------------------------------------------------------


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(*pairs, version=3, count=None, magic=b"GGUF"):
    data = struct.pack("<4sIQQ", magic, version, 0, len(pairs) if count is None else count)
    return data + b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in pairs)


def array(kind, *values):
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def test_what_a_model_file_says(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf(
            ("general.architecture", 8, text("llama")),
            ("tokenizer.ggml.tokens", 9, array(8, text("a"), text("bb"))),
            ("scores", 9, array(6, *[struct.pack("<f", 0.5)] * 3)),
            ("flag", 7, b"\1"),
            ("llama.context_length", 4, struct.pack("<I", 8192)),
            ("general.name", 8, text("Tiny")),
            ("tokenizer.chat_template", 8, text("{{ x }}")),
        )
        + b"weights"
    )
    found = read_model_file(path)
    assert (found.architecture, found.name, found.context, found.template) == ("llama", "Tiny", 8192, "{{ x }}")
    path.write_bytes(gguf())
    assert read_model_file(path).template == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        gguf(magic=b"GGML"),
        gguf(version=1),
        gguf(count=3),
        gguf(count=1 << 40),
        gguf(("a", 99, b"")),
        gguf(("a", 8, struct.pack("<Q", 1 << 60))),
        gguf(("a", 9, struct.pack("<IQ", 9, 1))),
        gguf(("a", 4, b"\1")),
    ],
)
def test_files_that_are_damaged(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ValueError, match="it is"):
        read_model_file(tmp_path / "m")


@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, noise, at):
    whole = gguf(("general.architecture", 8, text("llama")), ("llama.context_length", 4, struct.pack("<I", 8)))
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    path.write_bytes(whole[:at] + noise + whole[at:])
    with contextlib.suppress(ValueError):
        assert read_model_file(path).path == path


# -- threads --------------------------------------------------------------------------------------------------------


def machine(folder, *, group="", cores=8, siblings=2, **files):
    cpus = "\n\n".join(
        f"processor : {number}\nphysical id : 0\ncore id : {number // siblings}" for number in range(cores * siblings)
    )
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/cpuinfo").write_text(cpus, "utf-8")
    (folder / "proc/self/cgroup").write_text(f"0::/{group}\n", "utf-8")
    for name, content in files.items():
        path = folder / "sys/fs/cgroup" / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return folder


@pytest.fixture
def allowed(monkeypatch):
    def allow(count):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(count)))

    allow(64)
    return allow


@pytest.mark.parametrize(
    ("files", "group", "threads"),
    [
        ({}, "", 7),
        ({"cpu_max": "max 100000"}, "", 7),
        ({"cpu_max": "400000 100000"}, "", 3),
        ({"cpu_max": "250000 100000"}, "", 1),
        ({"cpu_max": "50000 100000"}, "", 1),
        ({"a__b__cpu_max": "max 100000", "a__cpu_max": "300000 100000"}, "a/b", 2),
        ({"a__b__cpu_max": "300000 100000", "cpu_max": "9900000 100000"}, "a/b", 2),
    ],
)
def test_threads_follow_the_quota(tmp_path, allowed, files, group, threads):
    assert usable_threads(machine(tmp_path, group=group, **files)) == threads


def test_threads_follow_cores_and_affinity(tmp_path, allowed):
    root = machine(tmp_path, cores=4, siblings=2)
    assert physical_cores((root / "proc/cpuinfo").read_text()) == 4
    assert usable_threads(root) == 3
    allowed(2)
    assert usable_threads(root) == 1
    assert physical_cores("processor : 0\nprocessor : 1") == 0
    assert usable_threads(tmp_path / "nowhere") == 1


def test_the_older_cgroups(tmp_path):
    root = machine(tmp_path)
    folder = root / "sys/fs/cgroup/cpu"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("150000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert quota_of(root) == 1.5
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert quota_of(root) is None
