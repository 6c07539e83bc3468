"""Lets the ServerApp of a deployment test run a few rounds in place of a whole study.

Python imports this file at its start wherever the folder is on PYTHONPATH; it costs nothing until it is used.
"""

import importlib
import sys
import types


class _Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name == "run_study":
            return importlib.import_module("stand_in_study").run_study
        raise AttributeError(name)


sys.modules["server.study_run"] = _Lazy("server.study_run")
