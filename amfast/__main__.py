"""``python -m amfast``: the command where its script is not on the path."""

from __future__ import annotations

from amfast.cli import main

if __name__ == "__main__":
    main()
