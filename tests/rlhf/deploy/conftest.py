"""The tiny model with a tokenizer that llama.cpp reads."""

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """llama.cpp reads no tokenizer without merges."""
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny-merges", merges=True)
