"""Mixed precision, for scripts written for it: they run, in float32.

`autocast` computes in the dtype that the tensors have; `GradScaler` scales, where it is enabled for the CPU.
"""

from faltung.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from faltung.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
