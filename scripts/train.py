"""Train on a manifest: `python scripts/train.py MANIFEST CONFIG RUN_DIR`; `torchrun` works too."""

import sys

import lepton_vision as lv


def main(manifest: str, config: str, run_dir: str) -> None:
    rows = lv.Manifest.load(manifest)
    bundle = lv.fit(lv.Config.from_yaml(config), rows, run_dir=run_dir, resume=True, tune_process=True)
    print(bundle.bundle_id, bundle.provenance["validation"])


if __name__ == "__main__":
    main(*sys.argv[1:])
