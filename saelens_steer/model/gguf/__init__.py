"""Models in one GGUF file: the header, what it means in transformers' words, and the weights."""

from saelens_steer.model.gguf.header import gguf_package
from saelens_steer.model.gguf.load import find_gguf, from_gguf
