"""Models in one GGUF file: the header, the transformers config that it amounts to, the weights."""

from saelens_steer.model.gguf.header import DAMAGE as GGUF_DAMAGE
from saelens_steer.model.gguf.header import gguf_package
from saelens_steer.model.gguf.load import find_gguf, from_gguf
