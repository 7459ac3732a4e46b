"""Where a profiler listens: None, but inside `with minigrad.profile():` (profiler.py)."""

from __future__ import annotations

from typing import Any

recorder: Any = None
