"""Score folders into shards, resumable: `python scripts/score.py BUNDLE OUTPUT INPUT…`."""

import sys

import lepton_vision as lv


def main(bundle: str, output: str, *inputs: str) -> None:
    print(lv.score(bundle, inputs, output, workers=2).to_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
