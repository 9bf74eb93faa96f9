"""Cold starts, each in a fresh process: import, --help, and the first score of a 2-D model. Medians and spread."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREPARE = """
import sys, torch
from lepton_vision.config import Config
from lepton_vision.demo import write_demo_study
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions import OperatingPoint
from lepton_vision.types import Target
target = Target("finding", "binary", ("absent", "present"))
config = Config(targets=(target,)).override("preprocess.windows=[lung]")
point = OperatingPoint({"finding": (0.5,)}, "stated")
state = build_model(config).state_dict()
Bundle(config=config, targets=config.targets, state=state, operating_point=point).save(sys.argv[1] + "/bundle")
write_demo_study(sys.argv[1] + "/demo", patients=20)
"""


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    tool = str(Path(sys.executable).with_name("lepton-vision"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", PREPARE, folder], check=True)
        image = str(next(Path(folder, "demo", "study").rglob("*.dcm")))
        score = [tool, "score", "--bundle", f"{folder}/bundle", "--input", image, "--output"]
        import_code = "import time; t = time.perf_counter(); import lepton_vision; print(time.perf_counter() - t)"
        rows: dict[str, list[float]] = {
            "import lepton_vision": [],
            "--help": [],
            "first score": [],
            "python -c pass": [],
        }
        for number in range(rounds):
            rows["python -c pass"].append(seconds([sys.executable, "-c", "pass"]))
            done = subprocess.run([sys.executable, "-c", import_code], check=True, capture_output=True, text=True)
            rows["import lepton_vision"].append(float(done.stdout))
            rows["--help"].append(seconds([tool, "--help"]))
            rows["first score"].append(seconds([*score, f"{folder}/scores-{number}"]))
    print(f"{'cold process':<24}{'median s':>10}{'min':>10}{'max':>10}   n = {rounds}")
    for name, values in rows.items():
        print(f"{name:<24}{statistics.median(values):>10.3f}{min(values):>10.3f}{max(values):>10.3f}")


if __name__ == "__main__":
    main()
