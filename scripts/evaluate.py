"""Evaluate a bundle on the test split once: `python scripts/evaluate.py BUNDLE MANIFEST REPORT`."""

import sys

import lepton_vision as lv


def main(bundle_folder: str, manifest: str, report: str) -> None:
    bundle = lv.Bundle.load(bundle_folder)
    predictions = lv.predict(bundle, lv.Manifest.load(manifest).subset("test"))
    evaluation = lv.evaluate(predictions, operating_point=bundle.operating_point)
    print(lv.write_report(evaluation, report))


if __name__ == "__main__":
    main(*sys.argv[1:])
