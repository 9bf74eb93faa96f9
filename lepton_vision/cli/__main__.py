"""Entry point of the command-line interface for ``python -m lepton_vision.cli``."""

from lepton_vision.cli.app import main

if __name__ == "__main__":
    main()
