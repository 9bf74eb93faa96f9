"""The folder of shards is one table for pandas, polars and DuckDB, whatever else lies in it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lepton_vision.demo.study import write_demo_study
from lepton_vision.scoring.batch import score
from tests.scoring.bundles import image_bundle

duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    study = write_demo_study(folder / "demo", patients=20)
    score(image_bundle("segmentation=null"), study.inbox, folder / "scores", shard_rows=8, batch_size=4)
    return folder / "scores"


def test_three_tools_read_the_same_table(scores: Path) -> None:
    assert len(list(scores.glob("part-*"))) > 1
    assert list((scores / "_cases").glob("*.parquet"))
    rows = pd.read_parquet(scores).sort_values("path_id", ignore_index=True)
    pattern = str(scores / "*.parquet")
    by_polars = polars.read_parquet(pattern).sort("path_id")
    assert by_polars.columns == list(rows.columns)
    assert (
        by_polars["sick_probability"].to_list()
        == rows["sick_probability"].astype(object).where(rows["sick_probability"].notna(), None).tolist()
    )
    with duckdb.connect() as base:
        counts = base.sql(f"select status, count(*) from '{pattern}' group by status").fetchall()
        found = base.sql(f"select path_id, sick_probability from '{pattern}' order by path_id").fetchall()
    assert dict(counts) == rows["status"].value_counts().to_dict()
    assert [one[0] for one in found] == rows["path_id"].tolist()
    assert [one[1] for one in found if one[1] is not None] == rows["sick_probability"].dropna().tolist()


def test_rows_of_patients_join_those_of_images(scores: Path) -> None:
    with duckdb.connect() as base:
        query = (
            f"select c.patient_id, c.images, count(*) from '{scores}/_cases/patient.parquet' c "
            f"join '{scores}/*.parquet' i using (patient_id) where i.status = 'ok' group by all"
        )
        found = base.sql(query).fetchall()
    assert found
    assert all(images == count for _, images, count in found)
