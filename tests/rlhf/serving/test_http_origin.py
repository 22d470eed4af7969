"""From where a request comes: this machine under its own name, another name that points here, another site's page."""

import pytest

from rlhf.serving.http_origin import is_from_elsewhere, is_loopback, on_this_machine


@pytest.mark.parametrize(
    ("peer", "host", "here"),
    [
        ("127.0.0.1", "127.0.0.1:7860", True),
        ("127.0.0.1", "localhost", True),
        ("::1", "[::1]:7860", True),
        ("127.0.0.1", "evil.test", False),
        ("127.0.0.1", "localhost.evil.test", False),
        ("127.0.0.1", "user@localhost", False),
        ("127.0.0.1", "localhost/x", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("192.0.2.1", "localhost", False),
    ],
)
def test_both_ends_must_be_this_machine(peer, host, here):
    assert on_this_machine(peer, host) is here


def test_names_under_localhost_are_this_machine():
    assert is_loopback("app.localhost") and is_loopback("127.9.9.9") and not is_loopback("localhosts") and not is_loopback("")


LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "headers", "elsewhere"),
    [
        ("POST", {"sec-fetch-site": "same-origin"}, False),
        ("GET", {"sec-fetch-site": "none"}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {"sec-fetch-site": "same-site"}, True),
        ("GET", {"sec-fetch-site": "cross-site"} | LINK, False),
        ("POST", {"sec-fetch-site": "cross-site"} | LINK, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, True),
        ("POST", {"host": "a.test:1", "origin": "http://a.test:1"}, False),
        ("POST", {"host": "a.test:1", "origin": "http://a.test"}, True),
        ("POST", {"host": "a.test", "origin": "null"}, True),
        ("POST", {"host": "a.test", "origin": "http://[a"}, True),
        ("POST", {"host": "a.test"}, False),
    ],
)
def test_another_sites_page_is_told_apart_from_a_link_and_from_a_program(method, headers, elsewhere):
    assert is_from_elsewhere(method, headers) is elsewhere
