"""An export that the page begins: one at a time, followed by the lines of its process."""

import pytest
from waiting import until

from feedback_ui.demo import running_export
from feedback_ui.demo.running_export import Exports
from storage.content import policies
from storage.core.database import StoreError


def test_a_version_without_an_adapter_is_refused_and_the_reason_is_shown(store, tmp_path):
    """The real command, which refuses before it loads a model; another export is not begun meanwhile."""
    policies.ensure_external(store, "elsewhere")
    exports = Exports(store.path.parent)
    running = exports.start("elsewhere", "peft", "default")
    with pytest.raises(StoreError, match="elsewhere is being exported as peft"):
        exports.start("elsewhere", "hf", "default")
    until(lambda: running.is_over)
    assert running.code == 2 and "a model of another program" in running.says
    assert exports.start("elsewhere", "peft", "default") is not running, "another one may begin then"
    until(lambda: exports.last.is_over)


@pytest.mark.parametrize(
    "line, found",
    [("  0% loading the policy", ("0", "loading the policy")), ("100% done", ("100", "done")), ("16 of 16 greedy answers", None)],
)
def test_lines_of_progress_are_told_from_others(line, found):
    step = running_export.LINE.fullmatch(line)
    assert (step and step.groups()) == found
