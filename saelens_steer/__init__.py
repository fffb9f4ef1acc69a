"""Steer language models along SAE features, and test whether the effect is real.

    import saelens_steer as ss

Names are imported when first used, so that the command line starts quickly; `__init__.pyi` lists
them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
