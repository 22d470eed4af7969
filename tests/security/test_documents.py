"""The limits in SECURITY.md are those of the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest

SECURITY = (Path(__file__).parents[2] / "SECURITY.md").read_text()
UNITS = {"KiB": 2**10, "MiB": 2**20}
ROWS = re.findall(r"^\| ([^|]+) \| ([\d,]+) ?(\w*) \| `([\w.]+)\.(\w+)(?:\[(\w+)\])?` \|$", SECURITY, flags=re.M)


def test_every_limit_names_where_it_is():
    table = SECURITY.split("## Limits")[1].split("##")[0]
    assert len(ROWS) == table.count("\n|") - 2 > 15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_limit_is_the_one_in_the_code(row):
    _, figure, unit, module, name, key = row
    value = getattr(import_module(module), name)
    value = value[key] if key else value
    assert value == int(figure.replace(",", "")) * UNITS.get(unit, 1)
