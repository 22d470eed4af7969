"""A reward function is found by its name, and only the one that was asked for is run."""

import pytest

from rlhf.runs import reward_function
from rlhf.runs.reward_function import RewardFunctionError


@pytest.mark.parametrize(
    "name, said",
    [
        ("json", "write it as module:function"),
        (":loads", "write it as module:function"),
        ("json:", "write it as module:function"),
        ("no_such_module:f", "No module named 'no_such_module'. Run it from the folder that holds no_such_module"),
        ("json:no_such", "has no attribute 'no_such'"),
        ("string:digits", "is a str, no function"),
    ],
)
def test_a_name_without_a_function_is_refused_with_the_reason(name, said):
    with pytest.raises(RewardFunctionError, match=said):
        reward_function.load(name)


def test_a_function_beside_the_data_is_found(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_here.py").write_text("def brevity(prompts, completions):\n    return [-len(c) for c in completions]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert reward_function.load("rewards_of_here:brevity")([], ["abc"]) == [-3]


def test_only_the_function_that_both_the_row_and_the_command_line_name_is_run():
    assert reward_function.load_confirmed(None, None) is None
    assert reward_function.load_confirmed("json:loads", "json:loads")("[1]") == [1]
    with pytest.raises(RewardFunctionError, match="add --reward os:system"):
        reward_function.load_confirmed("os:system", None)
    with pytest.raises(RewardFunctionError, match="add --reward os:system"):
        reward_function.load_confirmed("os:system", "json:loads")
    with pytest.raises(RewardFunctionError, match="the run was started without one"):
        reward_function.load_confirmed(None, "json:loads")
