"""Score in an array job, then merge (a folder that all nodes see, LEPTON_VISION_ID_KEY the same on all of them):

job=$(sbatch --parsable --array=0-99 --wrap "python scripts/score_slurm.py 100 BUNDLE OUTPUT INPUT…")
sbatch --dependency=afterany:$job --wrap "python scripts/score_slurm.py merge BUNDLE OUTPUT INPUT…"

A task that failed is run again alone (--array=7, the 100 stays), then merge again. Folders for masks or reports
(masks=…, reports=…) go to all three calls below.
"""

import os
import sys

from lepton_vision.scoring import list_run, merge_parts, score_part


def main(parts: str, bundle: str, output: str, *inputs: str) -> None:
    if parts == "merge":
        print(merge_parts(bundle, output, inputs=list_run(bundle, inputs, output)).to_dict())
    else:  # name the engine and its precision: nodes may differ in what they would choose
        part = int(os.environ["SLURM_ARRAY_TASK_ID"])
        how = {"engine": "torch", "precision": "fp32", "tune_process": True}
        done = score_part(bundle, inputs, output, part=part, parts=int(parts), **how)
        print("nothing left" if done is None else done.to_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
