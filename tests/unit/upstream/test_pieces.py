"""Text in pieces: stop texts, events, characters; each against the slow way, for any cut."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.upstream.backoff import Backoff
from mainspring.upstream.faults import BrokenError, error_of, retry_after
from mainspring.upstream.sse import EventData
from mainspring.upstream.stops import StopScanner
from mainspring.upstream.whole import WholeText, loads

LETTERS = st.text("ab", max_size=12)


def cut(data, places):
    """The parts of a text or of bytes between some of its places."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


PLACES = st.lists(st.integers(0, 200), max_size=8)


@given(LETTERS, st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), PLACES)
def test_stops(text, stops, places):
    """One sign at a time, the first stop text that is whole ends it; so for any cut, nothing of it is let through."""
    scanner = StopScanner(tuple(stops))
    told, last = "", None
    for piece in cut(text, places):
        told += scanner.feed(piece)
        assert text.startswith(told)
        if scanner.stopped_by:
            break
        assert len(scanner.held) < max(map(len, stops))
        last = scanner.held
    if not scanner.stopped_by:
        assert not [stop for stop in stops if stop in text]
        assert told + scanner.finish() == text
    else:
        assert told + scanner.stopped_by == text[: len(told) + len(scanner.stopped_by)]
        assert not [stop for stop in stops if stop in told]
    assert last is None or isinstance(last, str)


def test_a_stop_that_may_still_come_is_held_back_and_no_more():
    scanner = StopScanner(("<end>", "\n\n"))
    assert [scanner.feed(piece) for piece in ("a<", "e", "n", "x<end", "\n", "b", "\n", "\nc")] == [
        "a", "", "", "<enx", "<end", "\nb", "", "",
    ]  # fmt: skip
    assert (scanner.stopped_by, scanner.finish()) == ("\n\n", "")


PAYLOADS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=5
)


@given(PAYLOADS, st.sampled_from(["\n", "\r\n", "\r"]), PLACES, st.booleans())
def test_events_for_any_cut_and_line_end(payloads, line, places, spaced):
    head = "data: " if spaced else "data:"
    payloads = [payload for payload in payloads if spaced or not payload.startswith(" ")]
    data = "".join(f": ping{line}{line}event: x{line}{head}{payload}{line}{line}" for payload in payloads).encode()
    parser = EventData()
    found = [event for piece in cut(data, places) for event in parser.feed(piece)] + parser.finish()
    assert [event.decode() for event in found] == payloads


def test_lines_of_one_event_and_a_last_one_without_an_end():
    parser = EventData()
    assert parser.feed(b"data: a\ndata:\ndata: b\nid: 3\n\nretry: 9\n\ndata: c") == [b"a\n\nb"]
    assert parser.finish() == [b"c"]
    assert parser.finish() == []


def test_an_event_without_bounds_is_broken():
    parser = EventData()
    for _ in range(8):
        assert parser.feed(b"x" * (1 << 20)) == []
    with pytest.raises(BrokenError):
        parser.feed(b"x")


@given(st.text(st.characters(exclude_categories=["Cs"])), PLACES)
def test_characters_in_raw_bytes(text, places):
    """As an upstream sends them that cuts its tokens where bytes end: the bytes of an event are no UTF-8 alone."""
    whole = WholeText()
    events = [b'"' + json.dumps(text, ensure_ascii=False).encode()[1:-1] + b'"']
    raw = text.encode()
    pieces = [piece for piece in cut(raw, places) if piece]
    told = ""
    for piece in pieces:
        inner = piece.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        inner = re.sub(rb"[\x00-\x1f]", lambda found: b"\\u%04x" % found[0][0], inner)
        told += whole.feed(loads(b'"' + inner + b'"'))
        assert "\ufffd" not in told or "\ufffd" in text
    assert told + whole.finish() == text
    assert loads(events[0]) == text


@given(st.text(st.characters(exclude_categories=["Cs"])), PLACES)
def test_characters_in_surrogates(text, places):
    """As an upstream sends them that cuts between UTF-16 units."""
    units = [unit for sign in text for unit in json.dumps(sign)[1:-1].replace("\\u", "\0\\u").split("\0") if unit]
    whole = WholeText()
    told = "".join(whole.feed(loads(f'"{"".join(piece)}"'.encode())) for piece in cut(units, places))
    assert told + whole.finish() == text


def test_half_a_character_at_the_end_is_said_once():
    whole = WholeText()
    assert whole.feed("a\ud83d") == "a"
    assert (whole.finish(), whole.finish()) == ("\ufffd", "")


def test_waits_double_and_begin_again_when_it_has_held():
    backoff = Backoff(first=1.0, most=5.0, steady=60.0)
    assert [backoff.failed(held) for held in (0.0, 1.0, 59.0, 3.0, 0.0)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert [backoff.failed(held) for held in (60.0, 0.0)] == [1.0, 2.0]


@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_body_of_any_status_is_an_error_without_the_secret(body, status):
    error = error_of(status, {}, body + b'{"error": "sk-secret"}', "sk-secret")
    assert error.status == status
    assert error.message
    assert "sk-secret" not in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds
