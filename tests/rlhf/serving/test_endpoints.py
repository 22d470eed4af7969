"""Which endpoints the command line and a file name, and where their keys come from."""

import argparse
from pathlib import Path

import pytest

from rlhf.serving import endpoints
from rlhf.serving.endpoints import Endpoint, EndpointOptionError
from storage.content import policies

URL, OTHER = "http://127.0.0.1:8000/v1", "https://models.example/v1"


def options(*arguments):
    parser = argparse.ArgumentParser()
    endpoints.add_options(parser)
    return parser.parse_args(arguments)


def test_without_options_there_are_none():
    assert endpoints.from_options(options()) == []


def test_each_url_goes_with_its_model_and_one_url_may_serve_several():
    both = options("--endpoint", URL, "--endpoint-model", "a", "--endpoint", OTHER, "--endpoint-model", "b")
    assert endpoints.from_options(both) == [Endpoint(URL, "a"), Endpoint(OTHER, "b")]
    assert endpoints.from_options(options("--endpoint", URL, "--endpoint-model", "a", "--endpoint-model", "b")) == [
        Endpoint(URL, "a"), Endpoint(URL, "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments, said",
    [(["--endpoint", URL], "1 --endpoint and 0 --endpoint-model"), (["--endpoint-model", "a"], "0 --endpoint and 1"),
     (["--endpoint", "127.0.0.1:8000", "--endpoint-model", "a"], "is no address"),
     (["--endpoint", "file:///etc/passwd", "--endpoint-model", "a"], "is no address"),
     (["--endpoint", "http://me:secret@host/v1", "--endpoint-model", "a"], "is no address"),
     (["--endpoint", URL, "--endpoint-model", "a", "--endpoint", OTHER, "--endpoint-model", "a"], "two endpoints are called 'a'"),
     (["--endpoint-key-env", "KEY"], "a key without an --endpoint"),
     (["--endpoint", URL, "--endpoint-model", "a", "--endpoint", OTHER, "--endpoint-model", "b", "--endpoint-key-env", "KEY"],
      "one key for several servers"),
     (["--endpoint", URL, "--endpoint-model", "a", "--endpoint-key-env", "MISSING"], "the environment variable MISSING holds no key"),
     (["--endpoint", URL, "--endpoint-model", "a", "--endpoint-key-env", "KEY", "--endpoint-key-file", "x"], "name one of them"),
     (["--endpoint", URL, "--endpoint-model", "a", "--endpoint-key-file", "/nowhere/key"], "/nowhere/key: No such file"),
     (["--endpoints", "x.toml", "--endpoint", URL], "leave out --endpoint")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_with_the_reason(arguments, said, monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    monkeypatch.delenv("MISSING", raising=False)
    with pytest.raises(EndpointOptionError, match=said):
        endpoints.from_options(options(*arguments))


def test_a_key_comes_from_a_variable_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", " sk-1 ")
    (tmp_path / "key").write_text("sk-2\n")
    (tmp_path / "two").write_text("sk-2\nsk-3\n")
    assert endpoints.read_key("KEY", None) == "sk-1" and endpoints.read_key(None, tmp_path / "key") == "sk-2"
    with pytest.raises(EndpointOptionError, match="more than a key"):
        endpoints.read_key(None, tmp_path / "two")


def test_the_policy_servers_process_is_given_the_same_options_and_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    args = options("--endpoint", URL, "--endpoint-model", "a", "--endpoint-key-env", "KEY")
    again = options(*endpoints.as_arguments(args))
    assert endpoints.from_options(again) == [Endpoint(URL, "a", api_key="sk-1")]
    assert "sk-1" not in endpoints.as_arguments(args)
    file = options("--endpoints", "some.toml")
    assert options(*endpoints.as_arguments(file)).endpoints == Path("some.toml").absolute()


def test_a_file_names_several_with_their_own_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    (tmp_path / "key").write_text("sk-2")
    (tmp_path / "e.toml").write_text(
        f'[[endpoint]]\nurl = "{URL}"\nmodel = "m"\nname = "first"\napi_key_env = "KEY"\n'
        f'[[endpoint]]\nurl = "{OTHER}"\nmodel = "m"\napi_key_file = "key"\nrequests_per_minute = 20\n'
    )
    first, second = endpoints.from_options(options("--endpoints", str(tmp_path / "e.toml")))
    assert (first, first.version) == (Endpoint(URL, "m", "first", "sk-1"), "first")
    assert (second, second.version) == (Endpoint(OTHER, "m", "", "sk-2", 20), "m")


@pytest.mark.parametrize(
    "text, said",
    [("", "must hold tables"), ("x = 1", "must hold tables"), ("[[endpoint]]", "url and model is missing"), ("[[endpoint]", "e.toml"),
     (f'[[endpoint]]\nurl = "{URL}"\nmodel = "m"\napi_key = "sk-1"', "endpoint 1: a key does not stand in this file"),
     (f'[[endpoint]]\nurl = "{URL}"\nmodel = "m"\nmodle = "n"', "unknown field 'modle'"),
     (f'[[endpoint]]\nurl = "{URL}"\nmodel = 7', "model must be text, not 7"),
     (f'[[endpoint]]\nurl = "{URL}"\nmodel = "m"\nrequests_per_minute = 0', "requests_per_minute must be 1"),
     (f'[[endpoint]]\nurl = "{URL}"\nmodel = "m"\nrequests_per_minute = true', "must be a whole number"),
     ("endpoint = [1]", "must hold tables")],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_the_place(tmp_path, text, said):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(EndpointOptionError, match=said):
        endpoints.from_file(tmp_path / "e.toml")


def test_the_base_served_elsewhere_has_a_name_of_its_own(store):
    policies.ensure_external(store, "other")
    chosen = [Endpoint(URL, "base"), Endpoint(OTHER, "other")]
    apart = endpoints.named_apart(store, "models/base", chosen)
    assert [endpoint.version for endpoint in apart] == ["base@127.0.0.1:8000", "other"]
    assert [endpoint.model for endpoint in apart] == ["base", "other"], "the server there is asked for its own name"
    assert endpoints.named_apart(store, "models/base", apart) == apart


def test_a_name_that_was_chosen_and_is_taken_is_refused(store):
    with pytest.raises(EndpointOptionError, match="base is a policy version of this store: give the endpoint another name"):
        endpoints.named_apart(store, "models/base", [Endpoint(URL, "theirs", name="base")])
