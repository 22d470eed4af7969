"""Where the key of the rollout server is named, and that the worker is told the same."""

import argparse

import pytest

from rlhf.serving import rollout_options
from rlhf.serving.endpoints import EndpointOptionError


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    rollout_options.add_options(parser)
    return parser.parse_args(arguments)


def test_the_key_comes_from_a_variable_or_a_file_and_never_from_an_argument(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVER_KEY", " sk-1 ")
    (tmp_path / "key").write_text("sk-2\n", encoding="utf-8")
    assert rollout_options.read(parsed()) == "" and not rollout_options.named(parsed())
    by_variable, by_file = parsed("--rollouts-key-env", "SERVER_KEY"), parsed("--rollouts-key-file", str(tmp_path / "key"))
    assert (rollout_options.read(by_variable), rollout_options.read(by_file)) == ("sk-1", "sk-2")
    for args in (parsed(), by_variable, by_file):
        again = rollout_options.as_arguments(args)
        assert rollout_options.read(parsed(*again)) == rollout_options.read(args) and not {"sk-1", "sk-2"} & {*again}
    assert rollout_options.named(by_variable) and rollout_options.named(by_file)


def test_a_key_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EndpointOptionError, match="the environment variable NO_SUCH_KEY holds no key"):
        rollout_options.read(parsed("--rollouts-key-env", "NO_SUCH_KEY"))
    with pytest.raises(EndpointOptionError, match="a key comes from a variable or from a file"):
        rollout_options.read(parsed("--rollouts-key-env", "A", "--rollouts-key-file", str(tmp_path)))
