"""SAELens's training config, and the checks that need no training."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from saelens_steer.config import TrainSpec, check_architecture
from saelens_steer.data import begins_with_bos
from saelens_steer.errors import InputError, one_line
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.sae.training.resume import PER_TRAINING, latest
from saelens_steer.sae.training.scaling import SCALABLE
from saelens_steer.sae.training.trial import TRIED_WIDTH, try_steps

BUFFER_BATCHES = 16
"""Training batches in the mixing buffer."""
TIED = ("matching_pursuit",)
"""Architectures whose encoder is the decoder."""
WHITENING, WIDTHS = "covariance_whitening", "matryoshka_widths"


def check_train_spec(spec: TrainSpec) -> None:
    """Raise InputError unless SAELens can train such an SAE."""
    check_architecture(spec)
    config = _sae_config(spec, d_in=1, device="cpu")
    _check_values(spec)
    if spec.normalize != "none":
        _check_scalable(spec, config)
    if spec.frozen_decoder:
        _check_freezable(spec, config)
    try_steps(spec, _sae_config(spec, d_in=TRIED_WIDTH, device="cpu"))


def check_contexts(model: Model, spec: TrainSpec) -> None:
    """Raise InputError unless the model can read the spec's contexts, and memory hold the rest."""
    spec.check_size(model.cfg.d_model, str(model.cfg.device))
    begins_with_bos(tokenizer_of(model), spec.prepend_bos)
    if spec.context_size > model.cfg.n_ctx:
        raise InputError(
            f"sae.train.context_size {spec.context_size} is more than the model's "
            f"n_ctx={model.cfg.n_ctx}: lower it, or load the model with a larger n_ctx"
        )


def _check_values(spec: TrainSpec) -> None:
    """Raise InputError for an option whose value has another type than SAELens declares."""
    hints = get_type_hints(SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1])
    for option, value in spec.options.items():
        if option == "normalize_activations":  # SAELens takes more words than it declares
            continue
        kind = TypeAdapter(hints[option], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            kind.validate_python([*value] if isinstance(value, tuple) else value, strict=True)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Input ")
            raise InputError(
                f"architecture {spec.architecture}: option {option} {why}, not {value!r}"
            ) from None

    widths = spec.options.get(WIDTHS, ())
    ends = [0, *widths, spec.d_sae]
    if any(a >= b for a, b in itertools.pairwise(ends[:-1])) or (widths and ends[-2] > spec.d_sae):
        raise InputError(
            f"the values of option {WIDTHS} must increase and be at most d_sae = {spec.d_sae}, not "
            f"{[*widths]}"
        )


def _check_freezable(spec: TrainSpec, config: Any) -> None:
    """Raise InputError unless the encoder can be trained with fixed decoder directions."""
    if spec.architecture in TIED:
        raise InputError(
            f"frozen_decoder leaves {spec.architecture} nothing to train, as its encoder is its "
            "decoder: choose another architecture"
        )
    if config.normalize_activations == WHITENING:
        raise InputError(
            f"normalize_activations {WHITENING} changes the decoder's directions after training, "
            "which frozen_decoder forbids: remove one of the two"
        )


def _check_scalable(spec: TrainSpec, config: Any) -> None:
    """Raise InputError unless μ and s can be folded into this architecture exactly."""
    if spec.architecture not in SCALABLE:
        raise InputError(
            f"normalize {spec.normalize} cannot be folded exactly into {spec.architecture}: use "
            f"normalize none, or one of {', '.join(SCALABLE)}"
        )
    if config.normalize_activations != "none":
        raise InputError(
            f"options sets normalize_activations {config.normalize_activations} in addition to "
            f"normalize {spec.normalize}: remove one of the two"
        )


def runner_config(
    spec: TrainSpec, model: Any, hook_name: str, out: Path, checkpoints: Path | None = None
) -> LanguageModelSAERunnerConfig[Any]:
    """SAELens's runner config for our spec.

    checkpoints: a folder to save checkpoints in and to resume from.
    """
    resumed = latest(checkpoints) if checkpoints else None
    bos = begins_with_bos(tokenizer_of(model), spec.prepend_bos)
    steps = spec.training_tokens // spec.batch_tokens
    epoch = (spec.cached_tokens or spec.training_tokens) // spec.batch_tokens
    return LanguageModelSAERunnerConfig(
        sae=_sae_config(spec, d_in=model.cfg.d_model, device=str(model.cfg.device)),
        model_name=model.cfg.model_name,
        hook_name=hook_name,
        dataset_path=spec.corpus,
        dataset_trust_remote_code=False,
        is_dataset_tokenized=False,
        streaming=False,
        context_size=spec.context_size,
        training_tokens=spec.training_tokens,
        train_batch_size_tokens=spec.batch_tokens,
        store_batch_size_prompts=max(1, spec.batch_tokens // spec.context_size),
        n_batches_in_buffer=BUFFER_BATCHES,
        lr=spec.lr,
        lr_end=spec.lr_end,
        lr_scheduler_name=spec.lr_scheduler,
        # SAELens would never reach lr if warm-up and decay overlapped
        lr_warm_up_steps=min(spec.lr_warm_up_steps, steps // 4),
        lr_decay_steps=min(spec.lr_decay_steps, steps // 4),
        # steps of silence before a feature counts as dead: at most one epoch
        dead_feature_window=max(1, min(steps // 4, epoch)),
        prepend_bos=bos,
        sequence_separator_token="bos" if bos else None,
        exclude_special_tokens=True,
        device=str(model.cfg.device),
        seed=spec.seed,
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=str(checkpoints) if checkpoints else None,
        n_checkpoints=PER_TRAINING if checkpoints else 0,
        resume_from_checkpoint=str(resumed) if resumed else None,
        model_from_pretrained_kwargs={},
        output_path=str(out),
        verbose=False,
    )


def _sae_config(spec: TrainSpec, d_in: int, device: str) -> Any:
    """SAELens's config of the architecture, with decoder norms folded into z if it can."""
    config_class, unit_rows = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1], {}
    if "rescale_acts_by_decoder_norm" in {f.name for f in dataclasses.fields(config_class)}:
        unit_rows["rescale_acts_by_decoder_norm"] = True
    options = unit_rows | copy.deepcopy(spec.options)  # SAELens changes a list of widths in place
    try:
        return config_class(d_in=d_in, d_sae=spec.d_sae, device=device, **options)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"SAELens rejects the options of {spec.architecture}: {one_line(error)}"
        ) from None
