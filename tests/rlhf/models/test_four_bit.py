"""A base whose weights are packed in 4 bits. What needs bitsandbytes runs in a process of its own, which sees that package."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from rlhf.deploy import packages
from rlhf.models import four_bit
from rlhf.models.adapter_kinds import is_linear
from rlhf.models.backbone import Backbone
from rlhf.safe_files import ModelError

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_missing_package_is_named_with_what_to_do(tiny_folder):
    with pytest.raises(ModelError, match=r"--load-in-4bit needs bitsandbytes: `pip install bitsandbytes==0\.50\.2`, or leave"):
        Backbone.load(tiny_folder, "cpu", load_in_4bit=True)


def test_a_map_with_packed_weights_gets_an_adapter_and_a_router_does_not():
    class Packed(torch.nn.Linear):
        def forward(self, x):
            raise AssertionError("its weights are not the matrix that a trial would multiply")

    class Router(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), None

    packed = Packed(4, 4)
    packed.weight = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    assert is_linear(packed) and not is_linear(Router(4, 4))
    assert four_bit.is_packed(packed) and not four_bit.is_packed(torch.nn.Linear(4, 4)) and not four_bit.is_packed(torch.nn.ReLU())


@pytest.mark.slow
@pytest.mark.packages
def test_a_packed_base_computes_what_its_weights_unpacked_compute_and_adapters_learn_over_it():
    folder = packages.install([four_bit.BITSANDBYTES], print)
    paths = os.pathsep.join(map(str, [ROOT, ROOT / "tests" / "support", folder]))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "four_bit.py"],
        env=os.environ | {"PYTHONPATH": paths}, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["packed"] == 2 * 7
    assert found["hidden"] < 1e-5 and found["gradients"] < 1e-4 and found["answers alike"]
    assert found["finite"] > 10, "and a step of PPO has all its metrics"
