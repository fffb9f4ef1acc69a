"""An edit, a source of directions and a family of controls of a user's own."""

from __future__ import annotations

import torch

from saelens_steer import Edit


def mirror(target, amount, context, share=1.0):
    """x ← x − 2 · share · amount · (x · u) u: reflect along the direction."""
    u = torch.nn.functional.normalize(target.vectors.sum(0), dim=0)
    return Edit("mirror", lambda x: x - 2 * share * amount * (x @ u)[..., None] * u)


def no_edit(target, amount, context):
    """Returns something else."""
    return target.vectors


def first_component(activations, positive, negative):
    """The first principal component of the activations."""
    x = activations.vectors
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0]


def axes(known, generator):
    """Coordinate axes in random order."""
    for i in torch.randperm(known.d_model, generator=generator).tolist():
        yield torch.eye(known.d_model, dtype=torch.float64)[i : i + 1]
