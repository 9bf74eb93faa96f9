"""Peak memory of training and scoring at a few and at many rows, each in a process of its own.

Training reads one .npz of small images; scoring walks a folder of hard links to one DICOM file. What may grow is the
manifest, or the list of inputs: the column "rows" is what they hold, without what building them needed for a moment.
"growth" is what the peak grew since the line above of the same kind, beyond the growth of "rows": the figure that
should be 0. Two runs of the same size differ by up to 30 MiB, so up to 10,000 rows the median of three runs is shown,
with their range. 1,000 inputs do not fill one shard of scores (2,048 rows): the first step of "score" is the work on a
shard, which no larger number repeats.

    python scripts/bench/memory.py --what score --rows 10000 1000000 --stop-after 10000

lists a million inputs and scores the first of them, where scoring all would take an hour.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HELD = """
import ctypes, gc
import pyarrow
def held():  # MiB of this process, once the allocators have returned what is free
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
"""

TRAIN = """
import json, resource, sys
from pathlib import Path
import numpy as np
import pandas as pd
HELD
from lepton_vision.config import Config
from lepton_vision.manifest import Manifest
from lepton_vision.models import build_model
from lepton_vision.training import fit_model
from lepton_vision.transforms import make_loader
from lepton_vision.types import Target

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = held()
frame = pd.DataFrame({
    "image_id": [f"{k:016x}" for k in range(rows)], "path": "images.npz", "member": "train_images",
    "frame": np.arange(rows) % 1000, "status": "ok", "split": "train", "label": np.arange(rows) % 2,
})
frame["patient_id"] = frame["image_id"]
manifest = Manifest(frame, root=folder, label_columns=("label",))
del frame
rows_held = held() - start
config = Config(targets=(Target("label", "binary", ("0", "1")),)).override(
    "preprocess.size=[28, 28]", "model.stem=standard", "train.epochs=1", "train.batch_size=64",
    f"cache.folder={folder / sys.argv[3] / 'cache'}", "train.warmup_epochs=0",
)
loader = make_loader(manifest, config, training=True)
fit_model(build_model(config), loader, config, validate=lambda model: {"val_auroc": 0.5, "val_loss": 1.0,
          "val_average_precision": 0.5}, watched={"val_auroc": "higher"}, run_dir=folder / sys.argv[3] / "run")
print(json.dumps({"start": start, "rows": rows_held, "peak": peak()}))
"""

SCORE = """
import json, resource, sys
from pathlib import Path
HELD
from lepton_vision.models import Bundle
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.scoring.batch import score
from lepton_vision.scoring.inputs.inputs import list_inputs

folder, rows, most = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def told(done, total, failed):
    if done >= most:
        raise KeyboardInterrupt

keep_freed_memory()
bundle = Bundle.load(folder / "bundle")
start = held()
inputs = list_inputs(folder / f"inbox-{rows}", volumes=False)
rows_held = held() - start
del inputs  # score makes its own list
try:
    score(bundle, folder / f"inbox-{rows}", folder / sys.argv[3], progress=told)
except KeyboardInterrupt:
    pass
print(json.dumps({"start": start, "rows": rows_held, "peak": peak()}))
"""

PREPARE = """
import sys
from pathlib import Path
import numpy as np
from lepton_vision.config import Config
from lepton_vision.demo import write_demo_study
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions import OperatingPoint
from lepton_vision.types import Target
folder = Path(sys.argv[1])
target = Target("finding", "binary", ("absent", "present"))
config = Config(targets=(target,)).override("preprocess.size=[28, 28]", "preprocess.windows=[lung]")
config = config.override("model.stem=standard")
point = OperatingPoint({"finding": (0.5,)}, "stated")
state = build_model(config).state_dict()
Bundle(config=config, targets=config.targets, state=state, operating_point=point).save(folder / "bundle")
write_demo_study(folder / "demo", patients=20)
rng = np.random.default_rng(0)
np.savez(folder / "images.npz", train_images=rng.integers(0, 255, (1000, 28, 28), dtype=np.uint8))
"""


def measure(code: str, folder: str, rows: int, *, runs: int, most: int) -> list[dict[str, float]]:
    """Figures of each run, by peak."""
    found = []
    for number in range(runs):
        output = f"out-{rows}-{number}"
        command = [sys.executable, "-c", code.replace("HELD\n", HELD), folder, str(rows), output, str(most)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(Path(folder, output))
    return sorted(found, key=lambda figures: figures["peak"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--what", nargs="+", default=["train", "score"], choices=["train", "score"])
    parser.add_argument("--stop-after", type=int, default=10**9, help="rows that are scored")
    args = parser.parse_args()
    sizes = sorted(args.rows)
    above: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", PREPARE, folder], check=True)
        source = next(Path(folder, "demo", "study").rglob("*.dcm"))
        heads = f"{'what':<10}{'rows':>10}{'loaded MiB':>12}{'rows MiB':>10}{'peak MiB':>10}{'growth MiB':>12}"
        print(heads + f"{'range of peak':>15}")
        for rows in sizes:
            inbox = Path(folder, f"inbox-{rows}")
            for number in range(rows):
                if number % 1000 == 0:
                    place = inbox / f"{number // 1000:04d}"
                    place.mkdir(parents=True)
                    copy = place / "source.bin"
                    copy.write_bytes(source.read_bytes())  # a file bears only so many hard links
                else:
                    os.link(copy, place / f"{number:06d}.dcm")
            for what in args.what:
                code = {"train": TRAIN, "score": SCORE}[what]
                runs = measure(code, folder, rows, runs=3 if rows <= 10_000 else 1, most=args.stop_after)
                figures = runs[len(runs) // 2]
                before = above.get(what, figures)
                growth = figures["peak"] - before["peak"] - (figures["rows"] - before["rows"])
                above[what] = figures
                cells = f"{figures['start']:>12.0f}{figures['rows']:>10.0f}{figures['peak']:>10.0f}{growth:>12.0f}"
                print(f"{what:<10}{rows:>10,}{cells}{runs[0]['peak']:>10.0f}-{runs[-1]['peak']:.0f}", flush=True)


if __name__ == "__main__":
    main()
