"""``python -m m3kit VERB``: see :mod:`m3kit.cli`."""

import sys

from m3kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
