"""`cudasim:N` as a device; what it needs is imported when the first tensor goes there."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import DeviceError
from ..gpu import Card

if TYPE_CHECKING:
    from .runtime import SimRuntime


class CudaSim(Card, kind="cudasim"):
    @property
    def xp(self) -> ModuleType:
        raise DeviceError(f"{self.name}: has no array module: call .numpy() on the tensor, or use ops")

    @property
    def array_type(self) -> type:  # type: ignore[override]
        from .memory import SimArray

        return SimArray

    def _new_runtime(self) -> SimRuntime:
        from .runtime import SimRuntime

        return SimRuntime(self.index)
