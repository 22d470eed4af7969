"""Agreement and leaderboard as text for a terminal. What the figures mean is in docs/research/statistics.md."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

from rlhf.analysis.agreement import Agreement, Alpha, AnnotatorRow, LeftShare, Share
from rlhf.analysis.leaderboard import Figure, Leaderboard, Standing
from rlhf.safe_output import one_line

NO_VOTES = "no votes yet: judge some comparisons on the Compare page, or import some"
NO_SIMULATED = "Votes of people only; --include-simulated adds the others."
MEANING = "Intervals are at 95%. What each figure means is in docs/research/statistics.md."


def agreement(found: Agreement) -> str:
    """The figures over all annotators, then one line for each."""
    if not found.judgments and not found.annotators:
        return _lines(NO_VOTES, NO_SIMULATED if not found.include_simulated else "")
    overall = [
        ("votes", f"{found.judgments:,} on {_counted(found.comparisons, 'comparison')}"),
        ("pairs judged by two annotators or more", f"{found.units:,}"),
        ("Krippendorff's alpha, nominal", alpha(found.alpha_nominal)),
        ("Krippendorff's alpha, ordinal", alpha(found.alpha_ordinal)),
        ("comparisons ranked alike by all their annotators", share(found.unanimous)),
        ("left share of votes that prefer one of two", left(found.left_share)),
    ]
    width = max(len(name) for name, _ in overall)
    head = ["annotator", "votes", "excluded", "median", "gold", "same again", "left share", "p", "agrees"]
    return _lines(
        *(f"{name:<{width}}  {value}" for name, value in overall),
        "",
        *_columns([head, *map(_annotator, found.annotators)]),
        "",
        "median: active seconds; gold: pairs of known answers; same again: repeats; agrees: with the others on the same pairs.",
        NO_SIMULATED if not found.include_simulated else "",
        MEANING,
    )


def alpha(found: Alpha) -> str:
    """`0.743 (0.601 to 0.852)`."""
    if found.value is None:
        return found.reason
    within = f"({found.low:.3f} to {found.high:.3f})" if found.low is not None else f"({found.reason})"
    return f"{found.value:.3f} {within}"


def share(found: Share) -> str:
    """`9 of 12, 75.0% (46.8 to 91.1)`."""
    if found.share is None:
        return "none yet"
    return f"{found.count:,} of {found.of:,}, {_percent(found.share)} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def left(found: LeftShare) -> str:
    """`48.7% (45.1 to 52.3; 742 votes; p = 0.48)`."""
    if found.share is None:
        return "none yet"
    within = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    return f"{_percent(found.share)} ({within}; {_counted(found.n, 'vote')}; p = {found.p_value:.2g})"


def leaderboard(found: Leaderboard) -> str:
    """The standings, one table a group, then the win matrix."""
    if not found.standings:
        return _lines(
            "no votes between two policy versions yet: judge comparisons of different ones, or ask for some on the Lead page",
            NO_SIMULATED if not found.include_simulated else "",
        )
    said = [f"{_counted(found.judgments, 'vote')}, {_counted(found.pairs, 'pair')}, {_counted(found.prompts, 'prompt')}"]
    if not found.connected:
        said.append(f"{len(found.references)} groups that never met each other: scores of different groups cannot be compared")
    for group, reference in enumerate(found.references):
        rows = [s for s in found.standings if s.group == group]
        head = [
            "",
            "policy version",
            "score",
            "95%",
            f"beats {reference}" if reference else "",
            "95%" if reference else "",
            "votes",
            "won",
            "tied",
            "lost",
        ]
        said += ["", *_columns([head, *map(_standing, rows)])]
        said.append(f"{one_line(reference)} stands at 1000" if reference else "their mean stands at 1000")
    numbers = [str(number) for number, _ in enumerate(found.standings, 1)]
    matrix = [
        [number, standing.name, *map(_cell, shares, met)]
        for number, standing, shares, met in zip(numbers, found.standings, found.shares, found.met, strict=True)
    ]
    said += ["", "wins and half the ties, row over column (pairs)", *_columns([["", "", *numbers], *matrix]), ""]
    if found.smoothed:
        said.append("Some version won or lost everything: each pair that met got half a win each way, to keep the scores finite.")
    if found.standings[0].score.low is None:
        said.append("Too few prompts for intervals.")
    return _lines(*said, NO_SIMULATED if not found.include_simulated else "", MEANING)


def _annotator(row: AnnotatorRow) -> list[str]:
    return [
        row.name + (" (simulated)" if row.kind == "simulated" else ""),
        f"{row.judgments:,}",
        f"{row.excluded:,}",
        "" if row.median_active_s is None else f"{row.median_active_s:.1f} s",
        _of(row.gold),
        _of(row.consistency),
        "" if row.left_share.share is None else f"{_percent(row.left_share.share)} of {row.left_share.n:,}",
        "" if row.left_share.p_value is None else f"{row.left_share.p_value:.2g}",
        "" if row.agreement is None else f"{_percent(row.agreement)} of {row.agreement_units:,}",
    ]


def _standing(row: Standing) -> list[str]:
    over = row.over_base
    return [
        str(row.rank),
        row.name,
        f"{row.score.value:.0f}",
        _between(row.score, ".0f", 1),
        "" if over is None else _percent(over.value),
        "" if over is None else _between(over, ".1f", 100),
        f"{row.votes:,}",
        f"{row.wins:,}",
        f"{row.ties:,}",
        f"{row.losses:,}",
    ]


def _between(figure: Figure, form: str, scale: float) -> str:
    return "" if figure.low is None else f"{scale * figure.low:{form}} to {scale * figure.high:{form}}"


def _cell(won: float | None, met: int) -> str:
    return "" if won is None else f"{_percent(won)} ({met:,})"


def _of(found: Share) -> str:
    return "" if found.share is None else f"{_percent(found.share)} of {found.of:,}"


def _percent(found: float) -> str:
    return f"{100 * found:.1f}%"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, figures to the right; a column with nothing under its head is left out."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(_width, column)) for column in columns]
    names = [all(cell[:1].isalpha() for cell in column[1:]) for column in columns]
    return [
        "  ".join(_filled(cell, width, name) for cell, width, name in zip(row, widths, names, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _width(cell: str) -> int:
    """Places on a terminal: Korean letters take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in cell)


def _filled(cell: str, width: int, to_the_left: bool) -> str:
    blanks = " " * (width - _width(cell))
    return cell + blanks if to_the_left else blanks + cell


def _lines(*lines: str) -> str:
    return "\n".join(lines).rstrip()
