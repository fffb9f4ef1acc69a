"""From a model, an SAE and prompts to what features are named from and tested on."""

from saelens_steer.labelling.gather import Labelling
from saelens_steer.labelling.texts import text_study
