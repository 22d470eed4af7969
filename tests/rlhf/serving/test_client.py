"""The client of the policy server: what it reads, and what it says when there is no server."""

import pytest
from learning import user
from policy_server import streamed

from rlhf.serving.client import PolicyClient, PolicyServerDown


def test_the_clients_stream_is_pieces_of_text(server):
    pieces = streamed(server.client.stream("tiny", user("Hello"), temperature=0.0, max_tokens=20))
    assert all(isinstance(p, str) and p for p in pieces) and len(pieces) > 1
    assert "".join(pieces).strip() == server.says("tiny", temperature=0.0, max_tokens=20).text


def test_nothing_listens_is_told_with_what_to_do():
    client = PolicyClient("http://127.0.0.1:9/v1")
    for ask in (client.models, client.status, lambda: streamed(client.stream("m", user("Q"), temperature=1.0, max_tokens=5))):
        with pytest.raises(PolicyServerDown, match=r"no answer from the policy server at http://127\.0\.0\.1:9/v1") as caught:
            ask()
        assert "--endpoint" in str(caught.value)


def test_an_answer_that_breaks_off_is_told(server, monkeypatch):
    real = server.service.submit

    def breaks(*given, **named):
        stream = real(*given, **named)
        put, outputs = stream.put, iter(range(50))
        stream.put = lambda output: put(output if next(outputs) < 1 else RuntimeError("the machine burns"))
        return stream

    monkeypatch.setattr(server.service, "submit", breaks)
    with pytest.raises(PolicyServerDown):
        streamed(server.client.stream("tiny", user("Q"), temperature=1.0, max_tokens=50))
