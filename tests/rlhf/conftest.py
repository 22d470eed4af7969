"""A tiny model on disk and a store with a few judged comparisons, for tests that train or generate."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from learning import Judged
from policy_server import Server

from rlhf.config import RoundConfig
from rlhf.models.backbone import Backbone
from rlhf.runs.jobs import Jobs
from storage.core.data_folder import DataFolder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def eos_pad_folder(tmp_path_factory) -> Path:
    """The same model with one token for end of sequence and padding, as in the default model."""
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny-eos-pad", pad_is_eos=True)


@pytest.fixture
def backbone(tiny_folder) -> Backbone:
    return Backbone.load(tiny_folder, "cpu", "float32")


@pytest.fixture
def eos_pad_backbone(eos_pad_folder) -> Backbone:
    return Backbone.load(eos_pad_folder, "cpu", "float32")


@pytest.fixture
def empty_world(store, tiny_folder) -> Judged:
    return Judged(store, DataFolder(store.path.parent), tiny_folder)


@pytest.fixture
def judged(empty_world) -> Judged:
    return empty_world.fill()


@pytest.fixture
def jobs(judged) -> Jobs:
    return Jobs(judged.store, judged.folder)


@pytest.fixture
def long_config(judged) -> RoundConfig:
    """Enough steps to be caught in the middle of."""
    return judged.config(seed=4, ppo_steps=14, ppo_batch_size=16, sampling_max_new_tokens=24)


@pytest.fixture
def server(store, tiny_folder):
    started = Server(store, tiny_folder)
    yield started
    started.stop()
