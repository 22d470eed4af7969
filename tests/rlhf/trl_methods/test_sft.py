"""SFT by itself."""

import pytest
from learning import answered, logprob, user

from rlhf.config import SFTConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.ppo.rollout import POLICY
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import sft


def test_sft_learns_the_answer_and_its_end_but_not_the_prompt(policy, tmp_path):
    shown = [Demonstration(user("Hi?"), "abab")]
    (row,) = sft.rows(policy, shown)
    prompt = policy.encode(user("Hi?"))
    assert row["input_ids"] == [*prompt, *answered(policy, "abab")]
    assert row["labels"] == [-100] * len(prompt) + answered(policy, "abab")
    seen = []
    before = logprob(policy, POLICY, user("Hi?"), "abab")
    sft.train(
        policy,
        shown,
        SFTConfig(epochs=8, batch_size=1, learning_rate=2e-2),
        seed=0,
        scratch=tmp_path,
        on_progress=NO_PROGRESS,
        log=lambda _, logged: seen.append(logged),
    )
    assert seen[0]["loss"] == pytest.approx(-before / 5, abs=1e-3), "the mean over four letters and the end"
    assert seen[-1]["loss"] < seen[0]["loss"] - 1
    assert logprob(policy, POLICY, user("Hi?"), "abab") > before + 5
