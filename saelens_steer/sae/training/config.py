"""Training on centred and scaled activations, and folding that into the SAE afterwards."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, LanguageModelSAERunnerConfig, LoggingConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from torch import Tensor

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError, or_known
from saelens_steer.sae.training.resume import PER_TRAINING, latest
from saelens_steer.tensors import Vectors

FOLDABLE = ("standard", "gated", "jumprelu")
"""Where SAELens folds decoder norms exactly after training; topk and its kin fold as they train."""
SCALABLE = (*FOLDABLE, "topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
"""Where z grows with the input if biases and thresholds do. matching_pursuit stops at a threshold
that other tokens' rounding decides, and has no encoder bias."""
BIASES = ("b_enc", "b_gate", "b_mag")
ROWS = 8192
"""Vectors in float64 at a time."""


@dataclass(frozen=True)
class Scaling:
    """x̂ = (x − mean) / scale: mean [d_in] in the activations' units, scale the mean ‖x − mean‖."""

    mean: Float[Tensor, " d_in"]
    scale: float

    def __call__(self, vectors: Vectors) -> Vectors:
        """The vectors centred and scaled, in float32."""
        return (vectors.float() - self.mean) / self.scale


def scaling_of(vectors: Vectors) -> Scaling:
    """Mean and scale of these vectors, summed in float64. InputError where all are the same."""
    n = len(vectors)
    mean = sum(part.double().sum(0) for part in vectors.split(ROWS)) / n
    assert isinstance(mean, Tensor)
    norms = ((part.double() - mean).norm(dim=-1).sum() for part in vectors.split(ROWS))
    scale = float(sum(norms)) / n
    if not scale > 0:
        raise InputError(
            f"normalize mean_scale needs activations that differ, but all {n} are the same (or "
            "not finite): choose another hook"
        )
    return Scaling(mean.float(), scale)


def fold_decoder_norms(sae: SAE[Any]) -> None:
    """Move the norms of W_dec's rows into the encoder: the same SAE, and one α pushes all alike."""
    if sae.cfg.architecture() in FOLDABLE:
        sae.fold_W_dec_norm()


@torch.no_grad()
def fold_scaling(sae: SAE[Any], scaling: Scaling) -> None:
    """Make an SAE of x̂ one of x, in place: sae(x) becomes scale · sae(x̂) + mean, z scale · z.

    W_enc and W_dec stay as they are (unit rows stay unit rows). The metadata gets
    activation_mean_norm (‖mean‖) and activation_scale, for the record alone.
    """
    mean = scaling.mean.to(sae.W_enc)
    for name in (*BIASES, "threshold"):
        if isinstance(getattr(sae, name, None), Tensor):
            getattr(sae, name).data.mul_(scaling.scale)
    sae.b_dec.data.mul_(scaling.scale).add_(mean)
    if not sae.cfg.apply_b_dec_to_input:
        _shift_biases(sae, mean @ sae.W_enc)
    sae.cfg.metadata.activation_mean_norm = float(scaling.mean.norm())
    sae.cfg.metadata.activation_scale = scaling.scale


def _shift_biases(sae: SAE[Any], shift: Float[Tensor, " d_sae"]) -> None:
    """Take the mean's share out of the encoder's biases, where b_dec does not do it."""
    for name in BIASES:
        if isinstance(getattr(sae, name, None), Tensor):
            own = shift * sae.r_mag.exp() if name == "b_mag" else shift  # pyright: ignore
            getattr(sae, name).data.sub_(own)


BUFFER_BATCHES = 16
"""The mixing buffer holds so many training batches."""
TIED = ("matching_pursuit",)
"""Architectures whose encoder is the decoder."""
WHITENING = "covariance_whitening"


def check_train_spec(spec: TrainSpec) -> None:
    """Raise InputError unless SAELens knows the architecture and each of its options."""
    known = SAE_TRAINING_CLASS_REGISTRY
    if spec.architecture not in known:
        hint = or_known(spec.architecture, known)
        raise InputError(f"SAELens has no training architecture {spec.architecture!r}; {hint}")
    fields = {f.name for f in dataclasses.fields(known[spec.architecture][1])}
    for option in spec.options:
        if option not in fields:
            hint = or_known(option, fields)
            raise InputError(f"architecture {spec.architecture} has no option {option!r}; {hint}")
    config = _sae_config(spec, d_in=1, device="cpu")
    k = getattr(config, "k", None)
    if k is not None and "k" not in spec.options:
        raise InputError(
            f"architecture {spec.architecture} needs options: {{k: …}}, the number of features "
            "active on a token"
        )
    if k is not None and not (isinstance(k, int | float) and 0 < k <= spec.d_sae):
        raise InputError(f"option k must be a number up to d_sae = {spec.d_sae}, not {k!r}")
    if spec.normalize != "none":
        _check_scalable(spec, config)
    if spec.frozen_decoder:
        _check_freezable(spec, config)


def _check_freezable(spec: TrainSpec, config: Any) -> None:
    """Raise InputError unless the encoder can be trained while the decoder's directions stay."""
    if spec.architecture in TIED:
        raise InputError(
            f"frozen_decoder leaves {spec.architecture} nothing to train: its encoder is its "
            "decoder; choose another architecture"
        )
    if config.normalize_activations == WHITENING:
        raise InputError(
            f"normalize_activations {WHITENING} turns the decoder's directions after training, "
            "which frozen_decoder forbids: leave one of the two out"
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
            f"options has normalize_activations {config.normalize_activations} beside normalize "
            f"{spec.normalize}: leave one of the two out"
        )


def runner_config(
    spec: TrainSpec, model: Any, hook_name: str, out: Path, checkpoints: Path | None = None
) -> LanguageModelSAERunnerConfig[Any]:
    """SAELens's runner config for our spec; Qwen's lack of a BOS token is respected.

    checkpoints: a folder to keep checkpoints in and to go on from, if there is one already.
    """
    resumed = latest(checkpoints) if checkpoints else None
    bos = bool(model.cfg.default_prepend_bos)
    steps = spec.training_tokens // spec.batch_tokens
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
        # where the two overlap, SAELens never reaches lr
        lr_warm_up_steps=min(spec.lr_warm_up_steps, steps // 4),
        lr_decay_steps=min(spec.lr_decay_steps, steps // 4),
        dead_feature_window=_dead_window(spec, steps),
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


def _dead_window(spec: TrainSpec, steps: int) -> int:
    """A feature is dead if it did not fire for so many steps: at most one epoch, where cached."""
    epoch = (spec.cached_tokens or spec.training_tokens) // spec.batch_tokens
    return max(1, min(steps // 4, epoch))


def _sae_config(spec: TrainSpec, d_in: int, device: str) -> Any:
    config_class = SAE_TRAINING_CLASS_REGISTRY[spec.architecture][1]
    try:
        return config_class(
            d_in=d_in,
            d_sae=spec.d_sae,
            device=device,
            **{**_unit_decoder(config_class), **spec.options},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"SAELens refuses the options of {spec.architecture}: {error}") from None


def _unit_decoder(config_class: type) -> dict[str, Any]:
    """Where an architecture can fold decoder norms into its activations as it trains, let it."""
    fields = {f.name for f in dataclasses.fields(config_class)}
    return (
        {"rescale_acts_by_decoder_norm": True} if "rescale_acts_by_decoder_norm" in fields else {}
    )
