"""The server's start and its end."""

import time

import pytest
from small_site import serve
from waiting import until

from feedback_ui.server.serving import bound_socket


def test_the_server_stops_at_once_with_streams_open(store, caplog):
    took = []
    # One busy moment of the machine is no fault of the server's.
    while not took or (min(took) >= 2.5 and len(took) < 5):
        site = serve(store)
        if not took:
            site.account()
        ann = site.cookie()
        with site.streaming("/gradio_api/heartbeat/s", ann) as received:
            site.post("/gradio_api/queue/join", {"fn_index": 1, "data": [], "session_hash": "g"}, cookie=ann)
            with site.streaming("/gradio_api/queue/data?session_hash=g", ann) as more:
                begun = time.monotonic()
                site.serving.stop()
                took.append(time.monotonic() - begun)
                until(lambda received=received, more=more: None in received and None in more)
        assert not site.serving.alive
    assert min(took) < 2.5
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_a_taken_port_is_an_error_that_says_so(site):
    with pytest.raises(OSError, match="Address already in use"):
        bound_socket("127.0.0.1", site.serving.port)
