"""The activations that a sweep needs: at the steered hook, and at the hook that the SAE encodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.directions import needs_activations
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, measured_scale
from saelens_steer.model import same_places
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.pipeline.arguments import check_activations, check_start
from saelens_steer.progress import say
from saelens_steer.sae import check_sae_at, is_transcoder, reads_at
from saelens_steer.steering import UNITS_NEEDING_ACTIVATIONS
from saelens_steer.sweeps import Measurement


@dataclass(frozen=True)
class HeldActivations:
    """Given activations; the others are cached on the steered prompts once something needs them.

    An SAE encodes what it steers. A transcoder encodes another hook, whose activations give A_max
    and firing rates; Σ, norms and probes are of the steered hook. Raises InputError if activations
    of neither are given.
    """

    measurement: Measurement
    given: Activations | None

    def __post_init__(self) -> None:
        if self.given is None:
            return
        if self._other_hook is not None and self.given.hook_name in same_places(self._other_hook):
            check_sae_at(self._sae, self.given.d_model, self.given.hook_name)
            check_start(self.given, self.measurement.start, tokenizer_of(self.measurement.model))
        else:
            model, hook_name = self.measurement.model, self.measurement.hook_name
            check_activations(self.given, model, hook_name, self.measurement.start)

    @property
    def _sae(self) -> Any:
        return self.measurement.sae

    @cached_property
    def _other_hook(self) -> str | None:
        """The hook that a transcoder encodes; None for an SAE, which encodes what it steers."""
        if self._sae is None or not is_transcoder(self._sae):
            return None
        return reads_at(self._sae)

    @property
    def given_steered(self) -> Activations | None:
        """The given activations if they are of the steered hook."""
        places = same_places(self.measurement.hook_name)
        return self.given if self.given is not None and self.given.hook_name in places else None

    @cached_property
    def steered(self) -> Activations:
        """Activations at the steered hook."""
        return self.given_steered or self._cached(self.measurement.hook_name)

    @cached_property
    def encoded(self) -> Activations:
        """Activations that the SAE encodes."""
        if self._sae is None or not is_transcoder(self._sae):
            return self.steered
        if self._other_hook is None:
            raise InputError(
                "the transcoder does not say which hook it reads, and A_max and firing rates "
                'need it: write "hook_name" into the metadata of its cfg.json'
            )
        if self.given is not None and self.given_steered is None:
            return self.given
        return self._cached(self._other_hook)

    def scale(self) -> Scale:
        """Mean ‖x‖ where the sweep steers, and A_max of the features if they are α's unit."""
        spec = self.measurement.spec
        if not (spec.calibrated or spec.alpha_unit in UNITS_NEEDING_ACTIVATIONS):
            return NO_SCALE
        named = spec.named if spec.alpha_unit == "max_act" else ()
        if not named or self.encoded is self.steered:
            return measured_scale(self.steered, self._sae, named)
        norm = measured_scale(self.steered).resid_norm
        return replace(measured_scale(self.encoded, self._sae, named), resid_norm=norm)

    def for_controls(self) -> tuple[Activations | None, Activations | None]:
        """Activations at the steered hook, and those that the SAE encodes, if controls need any."""
        families = self.measurement.spec.families
        steered = self.steered if any(map(needs_activations, families)) else self.given_steered
        return steered, self.encoded if "feature" in families else None

    def _cached(self, hook_name: str) -> Activations:
        measurement = self.measurement
        if self.given is not None:
            say(f"no activations of {hook_name} were given: caching them on the steered prompts")
        return cache_activations(
            measurement.model,
            measurement.prompts,
            hook_name=hook_name,
            special_tokens=self._sae,
            **measurement.template.options,
        )
