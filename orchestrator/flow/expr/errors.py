"""What the compiler of expressions raises: one mistake, with its place inside the text it was given."""

from __future__ import annotations

from orchestrator.errors import OrchestratorError


class ExprError(OrchestratorError):
    """An expression cannot be used (codes E201-E211 of FLOWLANG §8).

    `offset` and `length` are characters of the text given to `compile_expression` or `compile_template`; the checker
    of the flow file adds file, line and column. `length` is at least 1; an error at the end of the text points just
    behind it.
    """

    def __init__(self, code: str, message: str, help: str = "", offset: int = 0, length: int = 1) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.help = help
        self.offset = offset
        self.length = max(length, 1)
