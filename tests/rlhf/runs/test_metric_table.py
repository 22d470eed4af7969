"""The table of metrics has what the sources log, and nothing else."""

import ast
import re
from pathlib import Path

import rlhf
from feedback_ui.training import charts
from rlhf.config import METHODS
from rlhf.runs import metric_table
from rlhf.runs.metric_table import BY_NAME, METRICS, TIME

ROOT = Path(rlhf.__file__).parent
NAME = re.compile(r"(objective|policy|val|loss|reward)/\w+|sampling/\w+/?\w*")
OF_TRL = tuple(f"{method}/" for method in METHODS)
"""What only a trainer of TRL names: `test_methods` runs those."""


def logged():
    """Every text in the sources that has the form of a metric's name, with the file that it is in."""
    for file in ROOT.rglob("*.py"):
        if file.name != Path(metric_table.__file__).name:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
                    yield node.value, file.name


def test_every_metric_that_is_logged_is_in_the_table():
    found = dict(logged())
    assert len(found) > 20
    assert {name: file for name, file in found.items() if name not in BY_NAME} == {}


def test_every_metric_of_the_table_is_logged():
    ours = {name for name in BY_NAME if not name.startswith((TIME, *OF_TRL))}
    assert ours - {name for name, _ in logged()} == set()


def test_every_metric_is_unique_and_has_a_meaning():
    assert len(BY_NAME) == len(METRICS) == len({metric.key for metric in METRICS})
    assert [metric.name for metric in METRICS if not metric.meaning.endswith(".")] == []


def test_those_with_a_title_are_those_with_a_chart():
    drawn = [chart.metric for chart in (*charts.REWARD_CHARTS, *(chart for of in charts.POLICY_CHARTS.values() for chart in of))]
    assert {metric.name for metric in drawn} == {metric.name for metric in METRICS if metric.title}


def test_an_undeclared_metric_is_unknown():
    assert metric_table.is_known("objective/kl") and metric_table.is_known("time/ppo") and metric_table.is_known("dpo/logits/chosen")
    assert not metric_table.is_known("objective/kll")
