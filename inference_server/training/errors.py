"""What training raises: one root with a stable dotted code, the offending value and a remedy.

Training knows nothing of the wire; whoever runs it translates the code into the product's own error.
"""

from __future__ import annotations

from typing import Any


class TrainingError(Exception):
    """Root of all errors raised on purpose while training.

    Codes: `training.config`, `training.recipe`, `training.data`, `training.resume`, `training.checkpoint`,
    `training.diverged`, `training.group`, `training.busy`.
    """

    def __init__(self, code: str, message: str, *, remedy: str, value: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.value = value

    def __str__(self) -> str:
        return f"{self.message} ({self.code}). {self.remedy}"
