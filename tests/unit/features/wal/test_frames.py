"""Frames: what is whole comes back, what is torn is told from what is damaged."""

from hypothesis import given
from hypothesis import strategies as st

from mainspring.features.wal.frames import Entry, Group, Head, frame, frames, is_torn

HEAD = Head(1, "source/a", "quarantine/a", b"schema", b"aside", 1, 0)
BODIES = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=20)), max_size=4)


def group(n, bodies):
    entries = [
        Entry(n + place, 5, f"push/{n + place}", 0, 1, 1, {}, None, "", len(rows), len(aside))
        for place, (rows, aside) in enumerate(bodies)
    ]
    return Group(n + len(bodies), 0, entries)


def written(groups):
    data, n = [frame(HEAD)], 1
    for bodies in groups:
        data.append(frame(group(n, bodies), [part for pair in bodies for part in pair]))
        n += len(bodies)
    return data


@given(st.lists(BODIES, max_size=5), st.data())
def test_what_is_whole_comes_back_however_much_of_the_last_frame_is_there(groups, draw):
    parts = written(groups)
    cut = draw.draw(st.integers(0, len(parts[-1])))
    data = b"".join(parts[:-1]) + parts[-1][:cut]
    whole = len(parts) if cut == len(parts[-1]) else len(parts) - 1
    found = list(frames(data, headed=True))
    assert len(found) == whole
    assert [one.what for one in found[:1]] == [HEAD][:whole]
    for one, bodies in zip(found[1:], groups, strict=False):
        assert data[one.bodies : one.stop] == b"".join(part for pair in bodies for part in pair)
    end = found[-1].stop if found else 0
    assert end == len(b"".join(parts[:whole]))
    assert is_torn(data[end:])


@given(st.lists(BODIES, min_size=2, max_size=5), st.data())
def test_a_changed_byte_is_noticed_and_is_no_torn_end(groups, draw):
    parts = written(groups)
    hit = draw.draw(st.integers(0, len(parts) - 2))
    at = sum(map(len, parts[:hit])) + draw.draw(st.integers(0, len(parts[hit]) - 1))
    data = bytearray(b"".join(parts))
    data[at] ^= draw.draw(st.integers(1, 255))
    found = list(frames(bytes(data), headed=True))
    assert len(found) == hit
    assert not is_torn(bytes(data[sum(map(len, parts[:hit])) :]))


def test_zeros_and_noise_after_the_end_are_torn():
    data = b"".join(written([[(b"abc", b"")]]))
    for rest in (b"\0" * 50, b"MSWL", b"MSWL\xff\xff\xff\xff....", b"noise"):
        assert len(list(frames(data + rest, headed=True))) == 2
        assert is_torn(rest)
