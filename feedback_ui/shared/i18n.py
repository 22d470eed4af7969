"""Every text that a reader sees, in English and Korean. No Gradio.

One file a language in `locales/`, nested by section; a key is the way to a text, with dots: `compare.save`. A text that
depends on a number has two, `x.one` and `x.other`, and is asked for as `x` with `count`; Korean needs `x.other` alone.
The English of a round's options (`option.NAME.title`, `.help`) comes from `rlhf.config`, where they are.
Leaves out which language a page's own labels are in: Gradio decides that in the browser, by the same rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.config import RoundConfig, options

LANGUAGES = ("en", "ko")

LOCALES = Path(__file__).parents[1] / "locales"

PLAIN_WORDS = {"min": "fewest", "ppo": "PPO", "dpo": "DPO", "sft": "SFT", "kl": "KL", "coef": "coefficient", "lam": "lambda", "eos": "EOS"}
"""What the parts of an option's name are called on a page, where that is something else."""


@dataclass(frozen=True, slots=True)
class Translator:
    """The texts of one language: `words("training.left", time="4 min")`."""

    language: str

    def __call__(self, key: str, **values: Any) -> str:
        """The text of that key with its `{places}` filled.

        Raises:
            KeyError: there is no such text, or a value that it needs is missing.
        """
        texts = tables()[self.language]
        found = key if key in texts or "count" not in values else f"{key}.{self._number(values['count'])}"
        if found not in texts:
            raise KeyError(f"no text {found!r} in locales/{self.language}.json")
        return texts[found].format(**values)

    def _number(self, count: float) -> str:
        return "one" if count == 1 and self.language == "en" else "other"


def translator_for(request: Any) -> Translator:
    """In the language that the reader's browser asks for first, if it is one of ours, and in English otherwise.

    Only the first wish counts, because Gradio's part of the page knows no other. `request` is Gradio's or Starlette's;
    one without headers reads English.
    """
    headers = getattr(request, "headers", None) or {}
    language = _first_wish(headers.get("accept-language") or "")
    return Translator(language if language in LANGUAGES else LANGUAGES[0])


def _first_wish(accept_language: str) -> str:
    """`ko` of `en;q=0.8, ko-KR` (RFC 9110, section 12.5.4)."""
    wishes = [part.partition(";") for part in accept_language.split(",")]
    tag, _, _ = max(wishes, key=lambda wish: _weight(wish[2]))
    return tag.strip().split("-")[0].lower()


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


@cache
def tables() -> dict[str, dict[str, str]]:
    """Every text by its whole key, by language."""
    found = {language: dict(_flat(_file(language))) for language in LANGUAGES}
    found["en"] |= _options_in_english()
    return found


def _options_in_english() -> dict[str, str]:
    """A round's options name and explain themselves, here as on the command line."""
    every = options(RoundConfig())
    titles = {f"option.{option.name}.title": _title(option.name) for option in every}
    return titles | {f"option.{option.name}.help": option.help for option in every}


def _title(name: str) -> str:
    """`PPO KL coefficient` of `ppo-kl-coef`."""
    said = " ".join(PLAIN_WORDS.get(part, part) for part in name.split("-"))
    return said[:1].upper() + said[1:]


def _file(language: str) -> Mapping[str, Any]:
    texts: Mapping[str, Any] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return texts


def _flat(texts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, found in texts.items():
        if isinstance(found, str):
            yield path + name, found
        else:
            yield from _flat(found, f"{path}{name}.")
