"""The policy server's key: from a file, long enough, and needed wherever other machines can reach the server."""

import argparse

import pytest

from rlhf.serving import api_key
from rlhf.serving.endpoints import EndpointOptionError

KEY = "0123456789abcdef"


def test_a_key_is_read_without_the_line_break_after_it(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert api_key.read(tmp_path / "key") == api_key.for_host("0.0.0.0", tmp_path / "key") == KEY
    assert api_key.read(None) == api_key.for_host("127.0.0.1", None) == api_key.for_host("localhost", None) == ""


@pytest.mark.parametrize("text, said", [(KEY[1:], "a key of 15 characters, and 16 are needed"), ("", "holds no key"),
                                        (f"{KEY} {KEY}", "holds more than a key")])  # fmt: skip
def test_a_key_that_is_none(tmp_path, text, said):
    (tmp_path / "key").write_text(text)
    with pytest.raises(EndpointOptionError, match=said):
        api_key.read(tmp_path / "key")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "models.example"])
def test_other_machines_are_answered_with_a_key_alone(host):
    with pytest.raises(EndpointOptionError, match=f"--host {host}: without a key everybody .* --api-key-file"):
        api_key.for_host(host, None)


def test_the_option_goes_on_to_the_servers_process_as_the_name_of_the_file(tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    api_key.add_option(parser)
    monkeypatch.chdir(tmp_path)
    assert api_key.as_arguments(parser.parse_args(["--api-key-file", "key"])) == ["--api-key-file", str(tmp_path / "key")]
    assert api_key.as_arguments(parser.parse_args([])) == []
