"""`python -m occluded_reid` is the command `occluded-reid`."""

from occluded_reid.cli import main

if __name__ == "__main__":
    main()
