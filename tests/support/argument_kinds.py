"""Kinds of argument that an attacker may send and no page sends, each as JSON text."""

import json
from dataclasses import dataclass

MARKUP = '<script>alert("walk")</script><img src=x onerror=alert("walk")>'

PLACE = "@@0@@"
"""The placeholder of an argument in a body that `put` fills; `place` gives those of further arguments."""


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    json: str
    """The argument as JSON text, which may be invalid JSON."""
    large: bool = False
    """Whether it has megabytes, or is slow to parse."""

    @property
    def text(self) -> str:
        """The argument as text in a path, a query or a form."""
        try:
            value = json.loads(self.json)
        except (ValueError, RecursionError):
            return self.json
        return value if isinstance(value, str) else self.json


def kinds(secret: str, address: str) -> list[Kind]:
    """Each kind once. `secret` is the path of a file that no page may read, `address` a server to which no request may be sent."""

    def file(path: str, **more: str) -> dict:
        return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}

    values = {
        "a file": file(secret, url=address, orig_name="../x", mime_type="text/html"),
        "files, nested": {"a": [{"b": [file(secret)]}], "file": [file(secret), file("/etc/passwd")]},
        "a device": file("/dev/zero"),
        "a folder": file("/etc"),
        "a file by its path": secret,
        "a way out": "../../../../../../etc/passwd",
        "an address as a file": file(address, url=address),
        "an address": address,
        "an address of a file": f"file://{secret}",
        "null": None,
        "true": True,
        "a text": "x",
        "a number as a text": "1e999",
        "a fraction": 0.5,
        "a list": [[1, "x"], None],
        "an object": {"x": {"y": 1}},
        "-1": -1,
        "2^63": 2**63,
        "half a surrogate pair": "\ud800",
        "NUL": "a\0b",
        "markup": MARKUP,
        "terminal escapes and a turned line": "\x1b]0;x\x07\u202egnp.exe\r\nx: y",
    }
    small = [Kind(name, json.dumps(value)) for name, value in values.items()]
    return [
        *small,
        # No JSON, or none that keeps its value.
        Kind("NaN", "NaN"),
        Kind("1e400", "1e400"),
        Kind("10^400", "1" + "0" * 400),
        Kind("10^5000", "1" + "0" * 5000),
        Kind("10 MB", json.dumps("x" * 10_000_000), large=True),
        Kind("100,000 deep", "[" * 100_000 + "]" * 100_000, large=True),
        Kind("10,000 objects deep", '{"a":' * 10_000 + "0" + "}" * 10_000, large=True),
    ]


def place(number: int) -> str:
    return f"@@{number}@@"


def put(body: object, *kinds: Kind) -> bytes:
    """The body as JSON, with each argument in the place of its placeholder."""
    text = json.dumps(body)
    for number, kind in enumerate(kinds):
        text = text.replace(json.dumps(place(number)), kind.json)
    return text.encode()
