"""Forged headers of a proxy have no effect."""

import json
from itertools import product

import pytest

FORGED = ["x-forwarded-host", "x-forwarded-server", "x-gradio-server", "x-forwarded-prefix", "forwarded", "x-original-url"]


@pytest.mark.parametrize("header", FORGED)
def test_a_forged_header_does_not_redirect(visitors, header):
    for path, said in product(("/", "/config"), ("evil.example", "http://evil.example")):
        reply = visitors["annotator"].get(path, headers={header: said})
        assert reply.status_code == 200 and "evil.example" not in reply.text, (path, said)


def test_the_page_knows_the_scheme_of_a_proxy_on_this_machine(visitors):
    client = visitors["annotator"]
    root = json.loads(client.get("/config", headers={"x-forwarded-proto": "https"}).text)["root"]
    assert root == str(client.base_url).rstrip("/").replace("http://", "https://")
    assert json.loads(client.get("/config").text)["root"] == str(client.base_url).rstrip("/")


def test_a_query_of_the_page_asks_gradio_for_nothing(visitors):
    for query in ("page=x", "deep_link=x", "page=runs", "deep_link=../../x"):
        for path in ("/", "/config"):
            plain = visitors["annotator"].get(path)
            reply = visitors["annotator"].get(f"{path}?{query}")
            assert reply.status_code == 200 and len(reply.text) == len(plain.text), query
