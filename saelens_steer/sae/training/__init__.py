"""Training SAEs through SAELens: our tokens, a log of every figure, several on one pass."""

from saelens_steer.sae.training.config import check_train_spec
from saelens_steer.sae.training.log import check_log
from saelens_steer.sae.training.resume import remove_checkpoints
from saelens_steer.sae.training.train import SAEGrid, train_sae
