"""A store file with damage as from a failing disk."""

import sqlite3
from contextlib import closing


def damage(path, *tables):
    """Overwrites the root pages of these tables and their indexes, as a failing disk may."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = raw.execute("PRAGMA page_size").fetchone()[0]
        of_table = "SELECT rootpage FROM sqlite_master WHERE tbl_name = ? AND rootpage"
        roots = [page for table in tables for (page,) in raw.execute(of_table, [table])]
    content = bytearray(path.read_bytes())
    for page in roots:
        content[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(content)
