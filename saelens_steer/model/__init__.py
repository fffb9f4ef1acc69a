"""Load a model of either class, prove that it equals its checkpoint, and run it.

Imported when first used; `__init__.pyi` lists the names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
