"""The database: its connection, its schema, its file, and the records that rows become."""

import sys

if "pandas" not in sys.modules:
    # sqlite_utils imports pandas where it is installed, for data frames that nobody passes here: a third of a command's start.
    sys.modules["pandas"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    import sqlite_utils  # noqa: F401

    del sys.modules["pandas"]
