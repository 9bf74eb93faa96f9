"""Command line, as ``python -m lepton_vision.cli``."""

from lepton_vision.cli.app import main

if __name__ == "__main__":
    main()
