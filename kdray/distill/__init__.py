"""Knowledge distillation: losses, the objective that weighs them, and the teacher's soft labels on disk."""

from kdray.distill.objective import kd_loss

__all__ = ["kd_loss"]
