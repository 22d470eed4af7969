"""Messages of imports and exports with the page's own controls in the place of the options of the command line. No Gradio."""

from __future__ import annotations

import re

from feedback_ui.shared.i18n import Translator

CONTROLS = {
    "--include-simulated": "lead.exports.option.include_simulated",
    "--packed": "lead.exports.option.packed",
    "--raw-cells": "lead.exports.option.raw_cells",
    "--strict": "lead.exports.option.strict",
    "--encoding": "lead.prompts.encoding",
    "--format": "lead.prompts.format",
    "--map": "lead.prompts.map",
}
"""Options that the page has a control for, and the names of its label."""

COMMAND_LINE = {
    "--max-row-mib": "lead.prompts.row_limit",
    "--max-unpacked-mib": "lead.prompts.unpacked_limit",
    "--max-text-chars": "lead.prompts.text_limit",
}
"""Options that only the command line has, and the names of what they are called."""

_UNDO = re.compile(r"rankloop import --undo (\d+).*", re.DOTALL)
_OPTION = re.compile(r"--[a-z][a-z-]*")


def by_controls(translate: Translator, message: str) -> str:
    """The message, with the label of a control for each option that it names."""

    def label(match: re.Match[str]) -> str:
        if key := CONTROLS.get(match[0]):
            return translate("lead.prompts.control", label=translate(key))
        return translate(COMMAND_LINE[match[0]]) if match[0] in COMMAND_LINE else match[0]

    message = _UNDO.sub(lambda match: translate("lead.prompts.undo_there", number=int(match[1])), message)
    message = message.replace("`rankloop import --list`", translate("lead.prompts.imports_below"))
    return _OPTION.sub(label, message)
