"""Which controls each candidate is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from saelens_steer.errors import InputError
from saelens_steer.evidence.grid import PUSH, RowGrid
from saelens_steer.steering import CANDIDATE

SAME_NORM = 1e-6
"""Norms this close (relative) are equal."""


@dataclass(frozen=True)
class Matching:
    """The candidates of a table, the controls of one family, and which pairs are comparable.

    A candidate is compared with controls of the same matched_norm that are shared or belong to it
    (matched_to); with all controls if the table lacks these columns.
    """

    candidates: Int[np.ndarray, " candidates"]
    controls: Int[np.ndarray, " controls"]
    comparable: Bool[np.ndarray, "candidates controls"]
    family: str | None

    @classmethod
    def of(cls, directions: pd.DataFrame, family: str | None = None) -> Matching:
        """Raises InputError if the family is missing, or ambiguous because there are several."""
        family = _family(families_of(directions), family)
        families = directions["family"].to_numpy(dtype=object)
        candidates = np.flatnonzero(families == CANDIDATE)
        controls = np.flatnonzero(families == family)
        comparable = np.ones((len(candidates), len(controls)), dtype=bool)
        if "matched_norm" in directions:
            norm = directions["matched_norm"].to_numpy(dtype=float, na_value=np.nan)
            ours, theirs = norm[candidates][:, None], norm[controls][None]
            comparable &= np.isclose(theirs, ours, rtol=SAME_NORM, atol=0, equal_nan=True)
        if "matched_to" in directions:
            matched = directions["matched_to"].astype(object).iloc[controls]
            name = directions["direction"].to_numpy(dtype=object)[candidates][:, None]
            comparable &= matched.isna().to_numpy()[None] | (
                matched.fillna("").to_numpy()[None] == name
            )
        return cls(candidates, controls, comparable, family)

    def about(self, grid: RowGrid, metric: str) -> pd.DataFrame:
        """The first columns of each claim: direction, feature, metric and controls (the family)."""
        named = grid.directions[["direction", "feature"]].iloc[self.candidates]
        return named.reset_index(drop=True).assign(metric=metric, controls=self.family)

    def groups(
        self, delta: Float[np.ndarray, "directions alphas"]
    ) -> Iterator[tuple[Int[np.ndarray, " group"], Float[np.ndarray, "matched alphas"]]]:
        """Groups of candidates (as indices) that share controls, and these controls' Δ.

        Only controls measured at every α of any candidate are used.
        """
        alphas = ~np.isnan(delta[self.candidates]).all(0)
        measured = ~np.isnan(delta[self.controls][:, alphas]).any(1)
        sharing: dict[bytes, list[int]] = {}
        for place, row in enumerate(self.comparable & measured & alphas.any()):
            sharing.setdefault(row.tobytes(), []).append(place)
        for row, group in sharing.items():
            yield np.array(group), delta[self.controls[np.frombuffer(row, dtype=bool)]][:, alphas]


def families_of(directions: pd.DataFrame) -> list[str]:
    """The families of controls, in order of appearance."""
    found = pd.unique(directions["family"].to_numpy(dtype=object))
    return [str(family) for family in found if family != CANDIDATE]


def _family(present: list[str], wanted: str | None) -> str | None:
    if wanted is not None and wanted not in present:
        raise InputError(
            f"the table has no {wanted!r} controls; known: {', '.join(present) or 'none'}"
        )
    if wanted is None and len(present) > 1:
        raise InputError(
            f"the table has several families ({', '.join(present)}): choose one with controls="
        )
    return wanted or (present[0] if present else None)


PUSHES = (PUSH, "add(orthogonal_to=domains)")
"""Edits that add one vector to every activation."""


def matched_by(table: pd.DataFrame) -> str:
    """The property that controls share with their candidates: `norm`, `KL` or `‖Δx‖`.

    For a push, it is the quantity that α measures; separate controls of each candidate match the
    other quantity. Controls of any other edit move each activation as far as the edit does.
    """
    if edit_of(table) not in PUSHES:
        return "‖Δx‖"
    separate = "matched_to" in table and bool(table["matched_to"].notna().to_numpy().any())
    in_nats = "alpha_unit" in table and set(table["alpha_unit"]) == {"kl"}
    return "KL" if in_nats != separate else "norm"


def edit_of(table: pd.DataFrame) -> str:
    """The edit that rows or a summary describe."""
    return str(table["edit"].iloc[0]) if "edit" in table and len(table) else PUSH
