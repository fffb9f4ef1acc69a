"""From a model, an SAE and prompts to labels: what features are named from and tested on."""

from saelens_steer.labelling.gather import Labelling
from saelens_steer.labelling.texts import text_study
from saelens_steer.labelling.work import Labelled, labelled

__all__ = ["Labelled", "Labelling", "labelled", "text_study"]
