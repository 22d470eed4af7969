"""The client of the policy server: what it reads, and what it says when there is no server."""

import pytest
from learning import user
from policy_server import streamed

from rlhf.serving.client import PolicyClient, PolicyServerDown
from storage.core.records import Sampling


def test_the_clients_stream_is_pieces_of_text_and_says_how_it_ended(server):
    pieces = streamed(server.client.stream("tiny", user("Hello"), Sampling(temperature=0.0, max_new_tokens=20), seed=0))
    assert len(pieces) > 2 and all(p.text for p in pieces if p.finish_reason is None)
    said = server.says("tiny", temperature=0.0, max_tokens=20)
    assert "".join(p.text for p in pieces).strip() == said.text
    assert [p.finish_reason for p in pieces if p.finish_reason] == [said.finish_reason]


def test_a_stream_is_sampled_as_it_is_asked_for(server):
    def said(sampling, seed):
        return "".join(p.text for p in streamed(server.client.stream("tiny", user("Hello"), sampling, seed=seed)))

    warm = Sampling(1.0, 1.0, 0, 16)
    assert said(warm, 5) == said(warm, 5) != said(warm, 6)
    greedy = said(Sampling(0.0, 1.0, 0, 16), 5)
    assert said(Sampling(1.0, 1.0, 1, 16), 5) == greedy == said(Sampling(1.0, 1e-6, 0, 16), 6), "one token is left to sample"


def test_nothing_listens_is_told_with_what_to_do():
    client = PolicyClient("http://127.0.0.1:9/v1")
    for ask in (client.models, client.status, lambda: streamed(client.stream("m", user("Q"), Sampling(), seed=0))):
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
        streamed(server.client.stream("tiny", user("Q"), Sampling(max_new_tokens=50), seed=0))
