"""The ring's extension module, and the records."""

import os
import struct
from types import ModuleType

import pytest
from bench_sidecar import protocol, ring
from bench_sidecar.ring import EventRing, RequestRing, RingError
from bench_sidecar.tap import library_push
from harness import make_ring, ring_header


def test_every_record_has_the_size_of_a_cache_line() -> None:
    layouts = {name: value for name, value in vars(protocol).items() if isinstance(value, struct.Struct)}
    assert len(layouts) == 7
    assert {layout.size for layout in layouts.values()} == {protocol.RECORD_SIZE}
    kinds = [getattr(protocol, f"KIND_{name}") for name in layouts]
    assert len(set(kinds)) == len(kinds)


def test_tap_makes_a_token_event_of_every_row_that_has_tokens(library: ModuleType) -> None:
    fd = make_ring(protocol.EVENT_STREAM)
    events, reader = EventRing(library, fd, -1), library.attach(fd, -1, protocol.EVENT_STREAM, 0)
    events.begin()
    ids = [f"{handle}-salt" for handle in range(10)]
    library_push(library, events.handle)(0, ids, [[5]] * 4 + [[]] + [[5, 6]] * 5)
    popped = library.pop(reader)
    first, second = (protocol.TOKENS.unpack_from(popped, at) for at in (0, 64))
    assert (first[:4], second[:4]) == ((protocol.KIND_TOKENS, 8, 0, 0), (protocol.KIND_TOKENS, 1, 0, 0))
    assert [*first[5:13], second[5]] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [*first[13:21], second[13]] == [1] * 4 + [2] * 5
    assert events.tapped()[0] == 1
    assert events.tapped()[2] == 9
    assert events.describe()["capacity"] == 1 << 15


def test_full_ring_takes_no_part_of_a_push(library: ModuleType) -> None:
    events = EventRing(library, make_ring(protocol.EVENT_STREAM, 2), -1)
    assert library.push(events.handle, bytes(3 * 64)) == 0
    assert library.push(events.handle, bytes(2 * 64)) == 2
    assert library.push(events.handle, bytes(64)) == 0
    with pytest.raises(ValueError, match="65 bytes are not whole records"):
        library.push(events.handle, bytes(65))


def bad_memory(name: str) -> int:
    header = ring_header(protocol.REQUEST_STREAM, 64)
    if name == "magic":
        return make_ring(protocol.REQUEST_STREAM, 64, header=b"X" + header[1:])
    if name == "abi":
        return make_ring(protocol.REQUEST_STREAM, 64, ring_header(protocol.REQUEST_STREAM, 64, abi_version=99))
    if name == "stream":
        return make_ring(protocol.EVENT_STREAM, 64)
    if name == "seals":
        return make_ring(protocol.REQUEST_STREAM, 64, seals=0)
    return os.open(os.devnull, os.O_RDWR)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("magic", "does not hold a ring"),
        ("abi", "another version of bench"),
        ("stream", "another record size, capacity or stream"),
        ("seals", "not sealed"),
        ("device", "too small"),
    ],
)
def test_memory_that_is_no_ring_of_ours_is_refused(library: ModuleType, name: str, says: str) -> None:
    fd = bad_memory(name)
    with pytest.raises(ValueError, match=says):
        RequestRing(library, fd, -1)
    os.close(fd)


def test_closed_descriptor_is_refused(library: ModuleType) -> None:
    with pytest.raises(ValueError, match="system call"):
        RequestRing(library, 10_000, -1)


def test_library_of_another_abi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ABI_VERSION", 99)
    with pytest.raises(RingError, match=r"ABI version \d+, this sidecar needs 99"):
        ring.load_library(os.environ["BENCH_RING_LIBRARY"])


def test_file_that_is_no_library_is_refused() -> None:
    with pytest.raises(RingError, match=os.path.basename(__file__)):
        ring.load_library(__file__)
