"""Files that appear complete or not at all."""

import gzip

import pytest

from storage.core.database import StoreError
from storage.exchange import atomic_files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with atomic_files.atomic_write_text(path) as file:
            file.write("half")
            raise RuntimeError
    assert path.read_text() == "old" and [item.name for item in tmp_path.iterdir()] == ["out.txt"]
    with atomic_files.atomic_write_text(path) as file:
        file.write("new")
    assert path.read_text() == "new" and [item.name for item in tmp_path.iterdir()] == ["out.txt"]
    with atomic_files.atomic_write_text(tmp_path / "out.gz") as file:
        file.write("zipped")
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == b"zipped"
    with pytest.raises(StoreError, match="cannot be written .*choose another folder"):
        with atomic_files.atomic_write_text(tmp_path / "nowhere" / "out.txt"):
            pass
