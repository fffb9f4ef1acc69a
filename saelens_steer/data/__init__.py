"""Prompts, chat templates, token sets and corpora.

Imported when first used; `__init__.pyi` lists the names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
