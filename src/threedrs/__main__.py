"""``python -m threedrs`` is the same as ``threedrs``."""

from threedrs.cli import main

if __name__ == "__main__":
    main()
