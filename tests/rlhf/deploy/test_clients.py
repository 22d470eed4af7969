"""The clients of docs/how-to/export.md are the programs of the cards, and run where their runtime is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.deploy.export import CLIENTS
from rlhf.deploy.formats import FORMATS

PAGE = (Path(__file__).parents[3] / "docs/how-to/export.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_shows_the_client_and_what_it_needs(name):
    section = re.search(rf"### {name}\n\nNeeds `pip install (.*?)`\.\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert section is not None
    assert section[1] == FORMATS[name].client_packages
    assert section[2] == (CLIENTS / f"{name}_client.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_says_what_passes(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert FORMATS[name].bound.in_words().replace("0.0", ".0") in row


@pytest.mark.slow
def test_the_client_of_hf_answers(tiny_folder):
    done = subprocess.run(
        [sys.executable, str(CLIENTS / "hf_client.py")],
        cwd=tiny_folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
