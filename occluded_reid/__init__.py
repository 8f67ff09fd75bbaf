"""occluded_reid: find a person again across cameras although half of the person is hidden.

Everything a user needs is importable from here; torch is loaded on first use of a name that needs it. The names and
where each is at home stand in ``__init__.pyi``.
"""

import lazy_loader

from occluded_reid._version import __version__ as __version__
from occluded_reid.moved import find_moved

find_moved()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
