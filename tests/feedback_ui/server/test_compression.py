"""The page and its modules are sent compressed to browsers that take it, and are the same text; answers of handlers are not compressed."""

import gzip

import brotli
import httpx2
import pytest

from feedback_ui.shared.scripts import modules


def raw(site, path, accepted, **more):
    """The body as it was sent, and the response."""
    with httpx2.stream("GET", site.url.rstrip("/") + path, headers={"Accept-Encoding": accepted}, **more) as reply:
        return b"".join(reply.iter_raw()), reply


UNPACK = {"br": brotli.decompress, "gzip": gzip.decompress}


@pytest.mark.parametrize("encoding", ["br", "gzip"])
@pytest.mark.parametrize("path", ["/", f"/modules/{modules().version}/compare.js"])
def test_pages_and_modules_are_smaller_and_the_same(site, path, encoding):
    plain, reply = raw(site, path, "identity")
    assert reply.status_code == 200 and "content-encoding" not in reply.headers
    sent, reply = raw(site, path, f"{encoding}, deflate")
    assert reply.headers["content-encoding"] == encoding and "accept-encoding" in reply.headers["vary"].lower()
    assert UNPACK[encoding](sent) == plain and len(sent) < len(plain) / 2
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_what_handlers_answer_is_not_compressed(site):
    _, reply = raw(site, "/gradio_api/info", "br, gzip")
    assert "content-encoding" not in reply.headers
