"""The web pages. A page a file; presenters beside them know nothing of Gradio, and nothing here knows torch."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

# Gradio reports usage to its makers otherwise, and reads this when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


class _WithoutStubs(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]  # a function of Gradio's


class _StubWriterFinder(MetaPathFinder):
    """Finds the module by which Gradio, at each import, parses its components and writes a stub file beside each, for editors.

    Its package has these files already, and they take two fifths of the time in which Gradio is imported.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "gradio.component_meta":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _WithoutStubs(fullname, spec.origin)
        return spec


sys.meta_path.insert(0, _StubWriterFinder())
