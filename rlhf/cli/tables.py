"""Agreement and leaderboard as text for a terminal. docs/research/statistics.md says what the numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

from rlhf.analysis.agreement import Agreement, Alpha, AnnotatorRow, LeftShare, Share
from rlhf.analysis.leaderboard import Leaderboard, ScoreEstimate, Standing
from rlhf.analysis.style import StyleEffect
from rlhf.safe_output import one_line

NO_VOTES = "no votes yet: judge some comparisons on the Compare page, or import some"
NO_SIMULATED = "Votes of people only; --include-simulated adds the others."
MEANING = "Intervals are at 95%. docs/research/statistics.md explains each column."


def agreement(result: Agreement) -> str:
    """The metrics over all annotators, then one line for each annotator."""
    if not result.judgments and not result.annotators:
        return _lines(NO_VOTES, NO_SIMULATED if not result.include_simulated else "")
    overall = [
        ("votes", f"{result.judgments:,} on {_counted(result.comparisons, 'comparison')}"),
        ("pairs judged by two annotators or more", f"{result.units:,}"),
        ("Krippendorff's alpha, nominal", alpha(result.alpha_nominal)),
        ("Krippendorff's alpha, ordinal", alpha(result.alpha_ordinal)),
        ("comparisons ranked alike by all their annotators", share(result.unanimous)),
        ("left share of votes that prefer one of two", left(result.left_share)),
    ]
    width = max(len(name) for name, _ in overall)
    head = ["annotator", "votes", "excluded", "median", "gold", "consistency", "left share", "p", "agreement"]
    return _lines(
        *(f"{name:<{width}}  {value}" for name, value in overall),
        "",
        *_columns([head, *map(_annotator, result.annotators)]),
        "",
        "median: active time per vote; gold: pairs ranked as in the gold answers; consistency: pairs judged the same in a repeat;",
        "agreement: with the other annotators on the same pairs.",
        NO_SIMULATED if not result.include_simulated else "",
        MEANING,
    )


def alpha(result: Alpha) -> str:
    """`0.743 (0.601 to 0.852)`."""
    if result.value is None:
        return result.reason
    within = f"({result.low:.3f} to {result.high:.3f})" if result.low is not None and result.high is not None else f"({result.reason})"
    return f"{result.value:.3f} {within}"


def share(result: Share) -> str:
    """`9 of 12, 75.0% (46.8 to 91.1)`."""
    if result.share is None or result.low is None or result.high is None:
        return "none yet"
    return f"{result.count:,} of {result.of:,}, {_percent(result.share)} ({100 * result.low:.1f} to {100 * result.high:.1f})"


def left(result: LeftShare) -> str:
    """`48.7% (45.1 to 52.3; 742 votes; p = 0.48)`."""
    if result.share is None or result.low is None or result.high is None:
        return "none yet"
    within = f"{100 * result.low:.1f} to {100 * result.high:.1f}"
    return f"{_percent(result.share)} ({within}; {_counted(result.n, 'vote')}; p = {result.p_value:.2g})"


def leaderboard(result: Leaderboard) -> str:
    """The standings, one table a group, then the win matrix."""
    if not result.standings:
        return _lines(
            "no votes between two policy versions yet: judge comparisons of different ones, or ask for some on the Lead page",
            NO_SIMULATED if not result.include_simulated else "",
        )
    lines = [f"{_counted(result.judgments, 'vote')}, {_counted(result.pairs, 'pair')}, {_counted(result.prompts, 'prompt')}"]
    if not result.connected:
        lines.append(f"{len(result.references)} groups without a pair between them: scores of different groups cannot be compared")
    for group, reference in enumerate(result.references):
        rows = [s for s in result.standings if s.group == group]
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
        lines += ["", *_columns([head, *map(_standing, rows)])]
        lines.append(f"{one_line(reference)} has score 1000" if reference else "the mean score of the group is 1000")
    numbers = [str(number) for number, _ in enumerate(result.standings, 1)]
    matrix = [
        [number, standing.name, *map(_cell, shares, met)]
        for number, standing, shares, met in zip(numbers, result.standings, result.shares, result.met, strict=True)
    ]
    lines += ["", "wins and half the ties, row over column (pairs)", *_columns([["", "", *numbers], *matrix]), ""]
    if result.style is not None:
        head = ["Length and markup are taken out of the scores. All else equal:", "preferred in", "pairs that differ"]
        lines += [*_columns([head, *map(_style, result.style)]), ""]
    if result.smoothed:
        lines.append("A version won or lost all its pairs: half a win each way was added for every two compared versions.")
    if result.standings[0].score.low is None:
        lines.append("Too few prompts for intervals.")
    return _lines(*lines, NO_SIMULATED if not result.include_simulated else "", MEANING)


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


STYLES = {
    "length": "an answer twice as long",
    "headers": "an answer with headers to one without",
    "lists": "an answer with lists to one without",
    "bold": "an answer with bold text to one without",
}


def _style(effect: StyleEffect) -> list[str]:
    if effect.chance is None:
        return [STYLES[effect.name], "", "none"]
    within = "" if effect.low is None or effect.high is None else f" ({100 * effect.low:.1f} to {100 * effect.high:.1f})"
    return [STYLES[effect.name], f"{_percent(effect.chance)}{within}", f"{effect.pairs:,}"]


def _between(figure: ScoreEstimate, form: str, scale: float) -> str:
    return "" if figure.low is None or figure.high is None else f"{scale * figure.low:{form}} to {scale * figure.high:{form}}"


def _cell(won: float | None, met: int) -> str:
    return "" if won is None else f"{_percent(won)} ({met:,})"


def _of(result: Share) -> str:
    return "" if result.share is None else f"{_percent(result.share)} of {result.of:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns text left and numbers right, and leaves out empty columns."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(_width, column)) for column in columns]
    names = [all(cell[:1].isalpha() for cell in column[1:]) for column in columns]
    return [
        "  ".join(_padded(cell, width, name) for cell, width, name in zip(row, widths, names, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _width(cell: str) -> int:
    """Columns on a terminal: Korean letters take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in cell)


def _padded(cell: str, width: int, align_left: bool) -> str:
    padding = " " * (width - _width(cell))
    return cell + padding if align_left else padding + cell


def _lines(*lines: str) -> str:
    return "\n".join(lines).rstrip()
