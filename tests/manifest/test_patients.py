"""Patient ids from a column or the path, and the warnings where there are none."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lepton_vision.cli.app import app
from lepton_vision.config.sections import SplitConfig
from lepton_vision.errors import ManifestError
from lepton_vision.manifest import Manifest, split_manifest
from lepton_vision.manifest.patient_paths import suggest_pattern
from lepton_vision.readers.identity import pseudonym
from tests.manifest.conftest import picture, write_picture

MRNS = [f"00{k}" for k in range(12)]


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """CheXpert's layout: 12 patient folders of 3 views; ``labels.csv`` has the patients in a column ``mrn``."""
    rows = []
    for k in range(36):
        name = f"train/patient{k // 3:05}/study1/view{k % 3}_frontal.png"
        write_picture(tmp_path / "img" / name, picture(k))
        rows.append(f"{name},{k // 3 % 2},{MRNS[k // 3]}")
    (tmp_path / "labels.csv").write_text("Path,Edema,mrn\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def divided(frame: pd.DataFrame) -> int:
    """Patient folders that stand in more than one split, counted by hand from the paths."""
    folders = frame["path"].str.split("/").str[1]
    return int((frame.groupby(folders)["split"].nunique() > 1).sum())


def run(*arguments: object) -> tuple[int, str, str]:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_scan_and_split_say_which_column_and_which_part_of_the_path_name_a_patient(
    chexpert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv")
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "36 of 36 images name no patient" in said[0]
    assert "--patient-from mrn" in said[0]
    assert r"--patient-from 'patient\d+'" in said[0]
    split_manifest(manifest)
    assert caplog.records[-1].message == said[0], "one sentence for a command, however many steps it takes"
    assert not set(MRNS) & set(" ".join(said).split())


@pytest.mark.parametrize("source", ["mrn", r"patient\d+", r"patient(\d+)/"])
def test_patients_named_by_column_or_path_stay_together(
    chexpert: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    scanned = Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv", patient_from=source)
    assert not caplog.records
    later = Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv").with_patients(source)
    for manifest in (scanned, later):
        frame = split_manifest(manifest).frame
        assert divided(frame) == 0
        assert frame["patient_id"].nunique() == 12
        assert frame["patient_known"].all()


def test_a_number_of_the_hospital_is_neither_label_nor_kept_as_it_stands(chexpert: Path, tmp_path: Path) -> None:
    manifest = Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv")
    assert manifest.label_columns == ("Edema",)
    text = manifest.save(tmp_path / "all.csv").read_text(encoding="utf-8")
    assert not [one for one in MRNS if f",{one}," in text or text.endswith(f",{one}\n")]
    named = Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv", patient_from="mrn")
    assert set(named.frame["patient_id"]) == {pseudonym("patient", one) for one in MRNS}, "leading zeros count"


def test_the_command_line_divides_by_what_it_is_told(chexpert: Path, tmp_path: Path) -> None:
    code, _, said = run("scan", chexpert / "img", "--labels", chexpert / "labels.csv", "--out", tmp_path / "a.parquet")
    assert (code, said.count("warning:")) == (0, 1)
    code, _, said = run("split", tmp_path / "a.parquet", "--out", tmp_path / "b.parquet")
    assert (code, said.count("warning:")) == (0, 1)
    assert divided(Manifest.load(tmp_path / "b.parquet").frame) > 0
    code, out, said = run("split", tmp_path / "a.parquet", "--out", tmp_path / "c.parquet", "--patient-from", "mrn",
                          "--json")  # fmt: skip
    assert (code, said) == (0, "")
    assert sum(part["patients"] for part in json.loads(out).values()) == 12
    assert divided(Manifest.load(tmp_path / "c.parquet").frame) == 0


def test_what_is_neither_column_nor_expression_is_refused(
    make_manifest: Callable[..., Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = make_manifest(y=[0, 1], mrn=["a", "b"], path=["p1/a.png", "other/b.png"])
    for source, said in (("mnr", "Did you mean 'mrn'"), ("p(", "neither a column"), ("(p)(1)", "at most one group")):
        with pytest.raises(ManifestError, match=said.replace("(", r"\(").replace(")", r"\)")):
            manifest.with_patients(source)
    assert manifest.with_patients(r"p\d").frame["patient_known"].tolist() == [True, False]
    assert "1 of 2 usable images" in caplog.text


def test_an_expression_without_a_match_is_shown_as_typed_beside_the_columns_of_the_table(
    make_manifest: Callable[..., Manifest],
) -> None:
    table = make_manifest(y=[0, 1], mrn=["a", "b"], path=["a.png", "b.png"])
    for source in (r"(patient\d+)/", r"(\d+"):
        with pytest.raises(ManifestError) as caught:
            table.with_patients(source)
        assert f"--patient-from '{source}' " in str(caught.value)
        assert str(caught.value).endswith(" Expected one of: mrn, y.")


def test_a_path_may_be_the_key_of_a_table_of_patients(tmp_path: Path) -> None:
    for k in range(4):
        write_picture(tmp_path / "img" / f"pat{k // 2}" / f"{k}.png", picture(k))
    table = pd.DataFrame({"patient_id": ["pat0", "pat1"], "sick": [0, 1]})
    manifest = Manifest.scan(tmp_path / "img", labels=table, patient_from=r"pat\d+")
    assert manifest.frame["sick"].tolist() == [0, 0, 1, 1]


def test_columns_of_patients_that_disagree_are_not_guessed_between(tmp_path: Path) -> None:
    for k in range(3):
        write_picture(tmp_path / f"{k}.png", picture(k))
    names = ["0.png", "1.png", "2.png"]
    agreeing = pd.DataFrame({"file": names, "patient": [1, 1, 2], "subject": ["a", "a", "b"]})
    assert Manifest.scan(tmp_path, labels=agreeing).frame["patient_id"].nunique() == 2
    table = agreeing.assign(subject=["a", "b", "c"])
    with pytest.raises(ManifestError, match="do not agree"):
        Manifest.scan(tmp_path, labels=table)
    assert Manifest.scan(tmp_path, labels=table, patient_from="subject").frame["patient_id"].nunique() == 3


def test_a_missing_patient_of_a_table_is_unknown(make_manifest: Callable[..., Manifest]) -> None:
    frame = make_manifest(y=[0, 1, 1], patient_id=["a", None, ""]).frame
    assert frame["patient_known"].tolist() == [True, False, False]


def test_nothing_is_said_where_every_image_names_its_patient(
    make_manifest: Callable[..., Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    split_manifest(make_manifest(y=[0, 1] * 6, patient_id=list("aabbccddeeff")), SplitConfig(val=0.25, test=0.25))
    assert not caplog.records


def test_the_warning_names_the_flag_where_nothing_looks_like_a_patient(
    make_manifest: Callable[..., Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    split_manifest(make_manifest(y=[0, 1] * 6), SplitConfig(val=0.25, test=0.25))
    assert "Give patient_id in the label table, or --patient-from" in caplog.text


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        ([f"p{10 + p % 3}/p{10000000 + p}/s{5000 + p}/{v}.jpg" for p in range(20) for v in "ab"], r"(?:^|/)(p\d{8})"),
        ([f"sub-{p:02}/anat/sub-{p:02}_T1w.nii.gz" for p in range(9)], r"sub-\d+"),
        ([f"sub-ctl{p}/anat/{v}.nii.gz" for p in range(9) for v in "ab"], "sub-[A-Za-z0-9]+"),
        ([f"TCGA-AB-00{p}A/{v}.png" for p in range(9) for v in "ab"], "TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}"),
        ([f"LIDC-IDRI-{p:04}/1-{v}.png" for p in range(9) for v in "12"], r"(?:^|/)(LIDC-IDRI-\d+)/"),
        ([f"sick/patient{p}_slice{v}.png" for p in range(9) for v in "12"], r"patient\d+"),
        ([f"Subject_{p}/{v}.png" for p in range(9) for v in "12"], r"Subject_\d+"),
        ([f"case_{p:03}.nii.gz" for p in range(9)], r"case_\d+"),
        ([f"IM-{p:04}-{v:04}.png" for p in range(9) for v in range(2)], r"(?:^|/)(IM-\d+)[-_. ][^/]*$"),
        ([f"images/{p:08}_{v:03}.png" for p in range(9) for v in range(2)], r"(?:^|/)(\d+)[-_. ][^/]*$"),
        ([f"Calc-Test_P_{p:05}_{v}/1.3.6/1-1.png" for p in range(9) for v in ("CC", "MLO")], r"P_\d{5}"),
        ([f"OAS1_{p:04}_MR{v}/1.png" for p in range(9) for v in "12"], r"OAS(?:[12]_|3)\d{4}"),
        ([f"S{p:03}_visit{v}/1.png" for p in range(9) for v in "12"], r"(?:^|/)(S\d+)"),
        ([f"{p % 2}/{p:03}/{v}.png" for p in range(20) for v in "12"], r"^(?:[^/]+/){1}(\d+)/"),
        ([f"{p // 1000}/{p}_{v}.png" for p in range(10_000, 24_000) for v in "a"], None),  # parts of a large set
        ([f"{p % 14}/{v:04}.png" for p in range(14) for v in range(1000)], None),
        ([f"{p // 250}/{p}.png" for p in range(14 * 250)], None),
        ([f"{p:03}/{v:03}.png" for p in range(14) for v in range(250)], r"(?:^|/)(\d+)/"),  # slices of a CT
        ([f"shard_{p}/{v}.png" for p in range(14) for v in range(3)], None),
        ([f"grade{p % 4}/{p}.png" for p in range(20)], None),
        ([f"{p % 5}/{p}.png" for p in range(20)], None),
        ([f"slice{p}_{v}.png" for p in range(9) for v in "ab"], None),
        ([f"view{p % 3}/img{p}.png" for p in range(9)], None),
        (["COVID/one.png", "COVID/two.png"], None),
        ([], None),
    ],
)
def test_parts_of_paths_that_look_like_a_patient(paths: list[str], pattern: str | None) -> None:
    assert suggest_pattern(paths) == pattern


def test_a_column_in_other_letters_is_named(chexpert: Path) -> None:
    with pytest.raises(ManifestError, match=r"Did you mean 'mrn'\?"):
        Manifest.scan(chexpert / "img", labels=chexpert / "labels.csv").with_patients("MRN")
