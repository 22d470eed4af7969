"""The counters of the policy server, as Prometheus reads them."""

from rlhf.generation.protocol.metrics import ServerMetrics
from rlhf.generation.protocol.responses import Usage


def test_a_request_is_counted_once_with_its_tokens_under_its_version():
    counts = {"queued": 3, "running": 2}
    metrics = ServerMetrics(lambda: counts)
    timer = metrics.begin("base-r1")
    timer.first_token()
    timer.end("stop", Usage(5, 7))
    timer.end("cancelled", Usage(5, 7))
    metrics.begin("base").end("refused")
    text = metrics.text().decode()
    for line in (
        'rankloop_requests_total{outcome="stop",version="base-r1"} 1.0', 'rankloop_requests_total{outcome="refused",version="base"} 1.0',
        'rankloop_prompt_tokens_total{version="base-r1"} 5.0', 'rankloop_completion_tokens_total{version="base-r1"} 7.0',
        'rankloop_time_to_first_token_seconds_count{version="base-r1"} 1.0', 'rankloop_request_seconds_count{version="base-r1"} 1.0',
        "rankloop_streams_queued 3.0", "rankloop_streams_running 2.0",
    ):  # fmt: skip
        assert f"{line}\n" in text
    assert 'outcome="cancelled"' not in text
    counts["running"] = 0
    assert "rankloop_streams_running 0.0" in metrics.text().decode(), "the engine is asked each time"


def test_two_servers_in_one_process_count_for_themselves():
    one, two = (ServerMetrics(lambda: {"queued": 0, "running": 0}) for _ in range(2))
    one.begin("a").end("stop", Usage(1, 1))
    assert "rankloop_requests_total{" not in two.text().decode()
