"""Programs that load an export with its own runtime. Each has a class `Model`; `check` drives it in a process of its own."""
