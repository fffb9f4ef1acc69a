"""Training through SAELens, with full logs, chosen tokens and grids that share activations."""

from saelens_steer.sae.training.config import check_contexts, check_train_spec
from saelens_steer.sae.training.resume import remove_checkpoints
from saelens_steer.sae.training.train import SAEGrid, train_sae
