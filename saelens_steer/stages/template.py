"""How the prompts are written that nothing is steered on: those of selection, and of a topic."""

from __future__ import annotations

from typing import Any

from saelens_steer.config import RunSpec


def template(spec: RunSpec) -> dict[str, Any]:
    """As the steered ones are, unless select.chat differs."""
    chat = spec.prompts.chat if spec.select.chat is None else spec.select.chat
    return {"system": spec.prompts.system, "chat": chat}
