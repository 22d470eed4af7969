"""The JavaScript modules of the pages, as the browser gets them: the files of `assets/`, and one module with the texts.

There is no build step. The browser loads the modules from a path that holds a digest of all of them. They can therefore be
cached without limit, and a page never runs modules of two versions of the app.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from markupsafe import Markup

from feedback_ui.shared.html import ASSETS, fragment, tag
from feedback_ui.shared.i18n import tables

ENTRY = "judging.js"
"""The module that imports all others of the judging pages."""

EVENTS = "events.js"
"""The module whose functions Gradio's events call (`in_browser`)."""

TRANSLATIONS = "translations.js"
"""The module that is made from the locale files."""

CLASSIC_SCRIPTS = ("page.js", "start.js", "row_buttons.js", "gold_order.js", "copy_buttons.js")
"""Scripts that are no modules: the first runs in the page's head, and Gradio runs the others as functions."""

BROWSER_SECTIONS = ("compare", "rank", "history")
"""Sections of the translations that the modules need."""

ROUTE = "/modules/{version}/{name}"


@dataclass(frozen=True, slots=True)
class Modules:
    """All modules of one version of the app."""

    sources: Mapping[str, bytes]
    """Each module's source by its file name."""
    version: str
    """A digest of all names and sources."""

    def path(self, name: str) -> str:
        """The address of a module, relative to the page's."""
        return ROUTE.lstrip("/").format(version=self.version, name=name)

    def preload_links(self) -> Markup:
        """HTML for the page's head that makes the browser load all modules at once, instead of import by import."""
        return fragment(*(tag("link", rel="modulepreload", href=self.path(name)) for name in self.sources))


@cache
def modules() -> Modules:
    """The modules, read once: the pages, the route and the digest agree even if the files change while the app runs."""
    files = (file for file in ASSETS.glob("*.js") if file.name not in CLASSIC_SCRIPTS)
    sources = {file.name: file.read_bytes() for file in files} | {TRANSLATIONS: _translations()}
    names = sorted(sources)
    digest = sha256(json.dumps([[name, sha256(sources[name]).hexdigest()] for name in names]).encode())
    return Modules({name: sources[name] for name in names}, digest.hexdigest()[:16])


def in_browser(function: str) -> str:
    """JavaScript for the `js` of an event: a function of `EVENTS`, called with the event's values."""
    events = f"new URL({json.dumps(modules().path(EVENTS))}, document.baseURI).href"
    return f"async (...values) => (await import({events})).{function}(...values)"


def browser_texts() -> dict[str, dict[str, str]]:
    """For each language, the texts that the modules insert."""
    return {
        language: {key: text for key, text in texts.items() if key.split(".")[0] in BROWSER_SECTIONS}
        for language, texts in tables().items()
    }


def _translations() -> bytes:
    return f"export default {json.dumps(browser_texts(), ensure_ascii=False, sort_keys=True)};\n".encode()
