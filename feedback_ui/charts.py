"""A run's metrics as quiet Plotly figures that keep their place while they fill. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from storage.records import Metric

# Legible on the light and on the dark page alike: a figure is drawn on the server, which knows neither.
LINE = "#4f83b5"
TEXT = "#85807a"
GRID = "rgba(133, 128, 122, .22)"
HEIGHT = 205


@dataclass(frozen=True, slots=True)
class Chart:
    metric: str
    title: str
    unit: str
    """What the axis counts, as the reader should hear it."""
    tickformat: str = ""


REWARD_CHARTS = (
    Chart("reward/loss", "Loss", "nats"),
    Chart("reward/heldout_accuracy", "Held-out accuracy", "of pairs", ".0%"),
)
PPO_CHARTS = (
    Chart("objective/scores", "Score", "mean per completion"),
    Chart("objective/kl", "KL to base", "nats per completion"),
    Chart("policy/entropy_avg", "Entropy", "nats per token"),
    Chart("val/response_length", "Answer length", "tokens"),
)
CHARTS = REWARD_CHARTS + PPO_CHARTS


def figure(chart: Chart, metrics: Sequence[Metric]) -> go.Figure:
    """One metric over its steps. Without points the axes stand there empty, at the same size."""
    points = sorted((m.step, m.value) for m in metrics if m.name == chart.metric)
    line = go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="lines" if len(points) > 40 else "lines+markers",
        line={"color": LINE, "width": 2},
        marker={"size": 5},
        hovertemplate=f"step %{{x}}<br>%{{y:{chart.tickformat or '.4~g'}}}<extra></extra>",
    )
    last = f"  {_written(chart, points[-1][1])}" if points else ""
    return go.Figure(
        line,
        layout={
            "height": HEIGHT,
            "margin": {"l": 46, "r": 10, "t": 34, "b": 38},
            "title": {
                "text": f"<b>{chart.title}</b>{last} <span style='font-size:11px'>{chart.unit}</span>",
                "font": {"size": 13},
                "x": 0,
                "xanchor": "left",
                "y": 0.97,
                "yanchor": "top",
            },
            "font": {"color": TEXT, "size": 11, "family": "system-ui, sans-serif"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {
                "showgrid": False,
                "zeroline": False,
                "linecolor": GRID,
                "fixedrange": True,
                "showticklabels": bool(points),
                "tickformat": "d",
                "nticks": 6,
                # Else a few steps would be labelled 0, 1, 1, 2, 2: halves, written as whole numbers.
                "dtick": 1 if points and points[-1][0] - points[0][0] < 6 else None,
                "title": {"text": "step", "font": {"size": 10}, "standoff": 4},
            },
            "yaxis": {
                "gridcolor": GRID,
                "zeroline": False,
                "tickformat": chart.tickformat,
                "fixedrange": True,
                "showticklabels": bool(points),
                "nticks": 5,
            },
            "showlegend": False,
            "hovermode": "x",
            "uirevision": chart.metric,
        },
    )


def _written(chart: Chart, value: float) -> str:
    return f"{value:.0%}" if chart.tickformat else f"{value:.3g}"
