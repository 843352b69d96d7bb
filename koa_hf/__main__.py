"""`python -m koa_hf`, the same as `koa`."""

import sys

from koa_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
