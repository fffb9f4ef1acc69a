from .header import GGUF_DAMAGE as GGUF_DAMAGE
from .header import find_gguf as find_gguf
from .header import gguf_package as gguf_package
from .load import from_gguf as from_gguf
