"""A library call leaves the process as it found it, for the threads beside it too."""

from __future__ import annotations

import logging
import os
import random
import re
import resource
import secrets
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

import lepton_vision as lv
from lepton_vision.cli.app import app
from tests.squares import planted_squares

CONFIG = lv.Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=16",
    "model.stem=standard",
    "train.precision=fp32",
    "train.epochs=1",
    "train.batch_size=16",
    "evaluation.replicates=100",
)
OWN = {"mean_score": lambda y_true, y_prob, sample_weight: float(np.average(y_prob, weights=sample_weight))}


def state() -> dict[str, Any]:
    """What a call must leave as it is."""
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    settings, cudnn = pydicom.config.settings, torch.backends.cudnn
    return {
        "turn": sys.getswitchinterval(),
        "threads": (torch.get_num_threads(), in_new_thread(torch.get_num_threads)),
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
        "kernels": (cudnn.benchmark, cudnn.deterministic, torch.get_float32_matmul_precision()),
        "random": (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())),  # noqa: NPY002
        "filters": (id(warnings.filters), list(warnings.filters), warnings.showwarning),
        "loggers": {one.name: (one.level, one.disabled, list(one.filters), list(one.handlers)) for one in loggers},
        "pydicom": (type(settings), vars(settings).copy()),
        "environment": dict(os.environ),
        "place": (Path.cwd(), list(sys.path)),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
    }


def in_new_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


class Witness:
    """A thread beside the call: what it sees of the process, warns and logs is the same all the time."""

    def __init__(self) -> None:
        self.rounds, self.seen, self._heard = 0, set[object](), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Witness:
        self._logger, self._handler = logging.getLogger("pydicom"), logging.Handler()
        self._handler.emit = self._hear  # type: ignore[method-assign]
        self._logger.addHandler(self._handler)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._logger.removeHandler(self._handler)

    def _hear(self, _record: logging.LogRecord) -> None:
        self._heard += 1

    @staticmethod
    def _warns() -> bool:
        try:  # the tests turn warnings into errors
            warnings.warn_explicit("of the thread beside", UserWarning, "file", 1, module="pydicom.valuerep")
        except UserWarning:
            return True
        time.sleep(0.0005)
        return False

    def _watch(self) -> None:
        while not self._stop.wait(0.002) or not self.rounds:
            self.rounds += 1
            before = self._heard
            self._logger.warning("of the thread beside")
            # pandas silences warnings of all threads for microseconds: what is told a moment later was not by us.
            warned = any(self._warns() for _ in range(3))
            mode = pydicom.config.settings.reading_validation_mode
            self.seen.add((self._heard - before, warned, mode, sys.getswitchinterval(), torch.get_num_threads()))


@dataclass(frozen=True)
class World:
    folder: Path
    manifest: lv.Manifest
    bundle: lv.Bundle
    dicom: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("process")
    manifest = planted_squares(folder, counts={"train": 32, "val": 24, "test": 24}, side=16, brighter=100)
    (folder / "inbox").mkdir()
    for number in range(6):
        write_dicom(folder / "inbox" / f"{number}.dcm", number)
    return World(folder, manifest, lv.fit(CONFIG, manifest, run_dir=folder / "run"), folder / "inbox")


def write_dicom(path: Path, number: int) -> None:
    """An image with values that pydicom warns of."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    with pydicom.config.disable_value_validation():
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.PatientID, dataset.Modality, dataset.StudyDate = "p" * 90, "CT", "not a date"
        dataset.Rows = dataset.Columns = 16
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PixelData = np.full((16, 16), number, dtype=np.uint8).tobytes()
        dataset.save_as(path)


def calls(world: World, out: Path) -> dict[str, Callable[[], object]]:
    """Each public function, as a user calls it."""
    test = lv.predict(world.bundle, world.manifest.subset("test"), device="cpu")
    point = world.bundle.operating_point
    assert point is not None
    judged = lv.evaluate(test, operating_point=point, config=CONFIG.evaluation)
    return {
        "aggregate": lambda: lv.aggregate(test, unit="patient"),
        "audit_manifest": lambda: lv.audit_manifest(world.manifest, CONFIG),
        "build_model": lambda: lv.build_model(world.bundle.config),
        "choose_operating_point": lambda: lv.choose_operating_point(replace(test, split="val")),
        "compare": lambda: lv.compare(test, test, operating_point=point, config=CONFIG.evaluation),
        "cross_validate": lambda: lv.cross_validate(
            CONFIG, world.manifest, folds=2, run_dir=out / "crossed", device="cpu", figures=OWN
        ),
        "embed": lambda: lv.embed(world.bundle, world.dicom, device="cpu"),
        "evaluate": lambda: lv.evaluate(test, operating_point=point, config=CONFIG.evaluation, figures=OWN),
        "explain": lambda: lv.explain(world.bundle, world.dicom / "0.dcm", device="cpu").picture,
        "fit": lambda: lv.fit(CONFIG, world.manifest, run_dir=out / "run", device="cpu", figures=OWN),
        "make_loader": lambda: list(lv.make_loader(world.manifest.subset("train"), world.bundle.config, training=True)),
        "predict": lambda: lv.predict(world.bundle, world.dicom, device="cpu"),
        "read_image": lambda: [lv.read_image(path) for path in world.dicom.iterdir()],
        "register_encoder": lambda: lv.register_encoder(f"process_{secrets.token_hex(8)}")(lambda **_: None),
        "run_study": lambda: lv.run_study(CONFIG, world.manifest, run_dir=out / "study", device="cpu", figures=OWN),
        "score": lambda: lv.score(world.bundle, world.dicom, out / "scores", device="cpu"),
        "show_batch": lambda: lv.show_batch(lv.make_loader(world.manifest.subset("train"), world.bundle.config)),
        "split_manifest": lambda: lv.split_manifest(world.manifest, CONFIG.split),
        "write_report": lambda: lv.write_report(judged, out / "report.html"),
        "Manifest.scan": lambda: lv.Manifest.scan(world.dicom, workers=0),
        "Manifest.from_frame": lambda: lv.Manifest.from_frame(
            pd.DataFrame({"path": ["0.dcm", "1.dcm"], "label": [0, 1]}), root=world.dicom, workers=0
        ),
        "Bundle.load": lambda: lv.Bundle.load(world.folder / "run" / "bundle"),
    }


def test_every_public_function_leaves_the_process_as_it_found_it(world: World, tmp_path: Path) -> None:
    names = {name for name in calls(world, tmp_path) if "." not in name}
    assert names == {name for name in lv.__all__ if name[0].islower()}, "a new function needs a line in `calls`"
    for name, call in calls(world, tmp_path / "first").items():
        call()  # what others do when they are imported is theirs
        again = calls(world, tmp_path / name)[name]
        before = state()
        with Witness() as witness, ThreadPoolExecutor(1) as pool:
            pool.submit(again).result()
        changed = {key for key, value in state().items() if value != before[key]}
        assert changed == set(), name
        assert witness.seen == {(1, True, pydicom.config.WARN, before["turn"], before["threads"][0])}, name


def test_calls_that_overlap_and_fail_leave_it_as_well(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes((world.dicom / "0.dcm").read_bytes()[:-40])

    def read(_: int) -> None:
        for path in (*world.dicom.iterdir(), broken):
            try:
                with warnings.catch_warnings():  # which exchanges the filters under the others
                    lv.read_image(path)
            except lv.LeptonError:
                pass

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    before = state()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(40)))
        scores = pool.submit(lv.score, world.bundle, world.dicom, tmp_path / "s", progress=stopped, tune_process=False)
        fits = [pool.submit(lv.fit, CONFIG, world.manifest, run_dir=tmp_path / f"{k}", device="cpu") for k in range(2)]
        assert isinstance(scores.exception(), KeyboardInterrupt)
        assert [one.exception() for one in fits] == [None, None]
    # ``catch_warnings`` of several threads, as pandas has it, may leave filters of pandas behind (Python, warnings).
    assert {type(module) for _, _, _, module, _ in warnings.filters} <= {type(None), str, re.Pattern}
    after = state()
    after["loggers"] = {name: after["loggers"][name] for name in before["loggers"]}  # imports have made others
    assert {key for key in before if after[key] != before[key]} <= {"filters"}


def test_memory_is_tuned_where_it_is_asked_for(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    for where in ("lepton_vision.pipeline.training", "lepton_vision.scoring.batch", "lepton_vision.models.allocator"):
        monkeypatch.setattr(f"{where}.keep_freed_memory", lambda where=where: asked.append(where))
    turn, during = sys.getswitchinterval(), list[float]()
    lv.fit(CONFIG, world.manifest, run_dir=tmp_path / "plain", device="cpu")
    lv.score(world.bundle, world.dicom, tmp_path / "scores", device="cpu")
    assert asked == []
    lv.fit(CONFIG, world.manifest, run_dir=tmp_path / "tuned", device="cpu", tune_process=True)
    told = {
        "device": "cpu",
        "tune_process": True,
        "progress": lambda *_: during.append(round(sys.getswitchinterval(), 6)),
    }
    lv.score(world.bundle, world.dicom, tmp_path / "faster", **told)  # type: ignore[arg-type]
    assert asked == ["lepton_vision.pipeline.training", "lepton_vision.scoring.batch"]
    assert set(during) == {0.0001}
    assert sys.getswitchinterval() == turn


def test_the_command_line_tunes_its_own_process(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    for where in ("lepton_vision.pipeline.training", "lepton_vision.scoring.batch", "lepton_vision.models.allocator"):
        monkeypatch.setattr(f"{where}.keep_freed_memory", lambda where=where: asked.append(where))
    CONFIG.to_yaml(tmp_path / "c.yaml")
    rows, bundle = tmp_path / "m.parquet", world.folder / "run" / "bundle"
    world.manifest.save(rows)
    common = ["--config", tmp_path / "c.yaml", "--run-dir"]
    lines = {
        "train": ["train", "--manifest", rows, *common, tmp_path / "train", "--device", "cpu"],
        "run": ["run", "--source", rows, *common, tmp_path / "run", "--device", "cpu"],
        "score": ["score", "--bundle", bundle, "--input", world.dicom, "--output", tmp_path / "out", "--device", "cpu"],
    }
    for name, line in lines.items():
        asked.clear()
        done = CliRunner().invoke(app, [str(one) for one in line])
        assert (name, done.exit_code, len(asked)) == (name, 0, 1), repr(done.exception) + done.output
