"""Event files for TensorBoard: checksums, records and values, byte by byte."""

import struct

from rlhf.runs import event_files
from storage.core.records import Metric
from storage.project import runs


def test_the_checksums_are_those_of_the_format():
    # RFC 3720, appendix B.4, and the check value of the polynomial.
    assert event_files.crc32c(bytes(32)) == 0x8A9136AA
    assert event_files.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert event_files.crc32c(b"123456789") == 0xE3069283
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert event_files.masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def events(content):
    """The events of a file, each checked against its two checksums."""
    found = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert struct.unpack("<I", content[8:12])[0] == event_files.masked_crc(content[:8])
        event, rest = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", rest[:4])[0] == event_files.masked_crc(event)
        found.append(event)
        content = rest[4:]
    return found


def test_an_event_is_one_step_with_its_values():
    version, first, second = events(
        b"".join(event_files.records([Metric("b", 300, 2.0), Metric("kl", 1, 0.5), Metric("a", 300, -1.5)], 2.5))
    )
    time = b"\x09" + struct.pack("<d", 2.5)
    assert version == time + b"\x10\x00" + b"\x1a\x0dbrain.Event:2"
    # Field 5, a summary, of values with a name and a number of 32 bits.
    assert first == time + b"\x10\x01" + b"\x2a\x0b" + b"\x0a\x09" + b"\x0a\x02kl" + b"\x15\x00\x00\x00\x3f"
    # 300 is 0b10_0101100; the names of a step are in their order.
    a, b = b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\xbf", b"\x0a\x08\x0a\x01b\x15\x00\x00\x00\x40"
    assert second == time + b"\x10\xac\x02" + b"\x2a\x14" + a + b


def test_each_run_has_a_folder_of_its_own(store, tmp_path):
    run = runs.create(store, "r1", config={}, seed=0, versions={})
    runs.log_metrics(store, "r1", 1, {"objective/kl": 0.5})
    file = event_files.write(tmp_path / "board", run, runs.metrics(store, "r1"))
    assert file.parent == tmp_path / "board" / "r1" and ".tfevents." in file.name
    assert len(events(file.read_bytes())) == 2
    assert event_files.write(tmp_path / "board", run, runs.metrics(store, "r1")) == file, "written again in its place"
    assert [*file.parent.iterdir()] == [file]
