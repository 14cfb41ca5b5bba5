"""Python runs this at the start of each process of a study whose PYTHONPATH names this directory: CPU in the session.

Each process that predicts keeps a file ``session-PID`` in the directory that SESSION_SECONDS names: the seconds of CPU
that its threads spent in onnxruntime's ``run``, newly written about every second of it.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import onnxruntime

_place = Path(os.environ["SESSION_SECONDS"])
_guard = threading.Lock()
_run = onnxruntime.InferenceSession.run
_spent = {"all": 0.0, "written": 0.0}


def _timed(*arguments: Any, **named: Any) -> Any:
    start = time.thread_time()
    try:
        return _run(*arguments, **named)
    finally:
        with _guard:
            _spent["all"] += time.thread_time() - start
            if _spent["all"] > _spent["written"] + 1:
                _spent["written"] = _spent["all"]
                part = _place / f".{os.getpid()}"
                part.write_text(f"{_spent['all']:.3f}", encoding="utf-8")
                part.replace(_place / f"session-{os.getpid()}")


onnxruntime.InferenceSession.run = _timed
