"""Limits of an import, by hand."""

import pytest

from storage.exchange.limits import MIB, Limits, mib


@pytest.mark.parametrize(
    ("packed", "unpacked"),
    [(0, 64 * MIB), (MIB // 4, 64 * MIB), (MIB, 200 * MIB), (100 * MIB, 4096 * MIB)],
)
def test_a_packed_file_may_unpack_to_200_times_its_size_within_bounds(packed, unpacked):
    assert Limits().unpacked(packed) == unpacked
    assert Limits(unpacked_bytes=5).unpacked(packed) == 5


def test_what_follows_from_the_largest_row():
    # 16 MiB over 160 bytes; 64 rows of 16 MiB are 1 GiB.
    assert Limits().values == 104_857 and Limits().parquet_memory == 1 << 30
    assert Limits(row_bytes=1_000).values == 1_000


def test_sizes_are_told_in_mib_from_one_mib_on():
    assert mib(MIB - 1) == "1,048,575 bytes" and mib(1024 * MIB) == "1,024 MiB"
