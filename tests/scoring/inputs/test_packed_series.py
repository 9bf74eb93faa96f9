"""Series in archives and object stores give the volumes that they give as plain files."""

from __future__ import annotations

import resource
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lepton_vision.errors import ConfigError
from lepton_vision.models import Bundle
from lepton_vision.readers.limits import DEFAULT_LIMITS
from lepton_vision.readers.temporary import MANY_FILES
from lepton_vision.scoring import score
from lepton_vision.scoring.inputs.inputs import list_inputs
from tests.scoring.bundles import image_bundle, read, volume_bundle
from tests.scoring.dicom_series import write_enhanced, write_series

BUCKET = "lepton-inbox"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return volume_bundle()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series and an enhanced file."""
    write_series(tmp_path / "study" / "a", [0.0, 2.0, 4.0])
    write_series(tmp_path / "study" / "b", [0.0, 3.0, 6.0, 9.0])
    write_enhanced(tmp_path / "study" / "c.dcm", [0.0, 2.0, 4.0])
    return tmp_path / "study"


def rows_of(bundle: Bundle, named: object, output: Path, **options: object) -> pd.DataFrame:
    score(bundle, named, output, device="cpu", precision="fp32", **options)  # type: ignore[arg-type]
    return read(output)


def assert_same_volumes(found: pd.DataFrame, plain: pd.DataFrame) -> None:
    names = ["series_id", "image_id", "status", "sick_probability", "organ_a_probability"]
    assert len(plain) == 3
    assert (plain["status"] == "ok").all()
    one, other = (table[names].sort_values("image_id", ignore_index=True) for table in (found, plain))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_series_in_an_archive(bundle: Bundle, study: Path, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"study.{kind}"
    files = sorted(path for path in study.rglob("*") if path.is_file())
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, path.relative_to(study))
    else:
        with tarfile.open(archive, "w:gz") as packed_tar:
            for path in files:
                packed_tar.add(path, path.relative_to(study))
    found = rows_of(bundle, archive, tmp_path / "out", path_map=tmp_path / "map.csv", masks=tmp_path / "masks")
    assert_same_volumes(found, rows_of(bundle, study, tmp_path / "plain"))
    assert found["mask"].notna().all()
    lines = pd.read_csv(tmp_path / "map.csv")
    assert sorted(lines["member"]) == sorted(path.relative_to(study).as_posix() for path in files)
    assert set(lines["path_id"]) == set(found["path_id"])
    again = score(bundle, archive, tmp_path / "out", device="cpu", precision="fp32", masks=tmp_path / "masks")
    assert again.new_rows == 0


def test_a_series_that_lies_beside_its_archive_is_one_input(bundle: Bundle, study: Path, tmp_path: Path) -> None:
    plain = rows_of(bundle, study, tmp_path / "plain")
    with zipfile.ZipFile(study / "copy.zip", "w") as packed:
        for path in sorted((study / "a").iterdir()):
            packed.write(path, path.name)
    assert_same_volumes(rows_of(bundle, study, tmp_path / "out"), plain)


def pack(study: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(path for path in study.rglob("*") if path.is_file()):
            packed.write(path, path.relative_to(study))
    return archive


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two series in folders of their own, and what is no slice."""
    write_series(tmp_path / "pair" / "a", [0.0, 2.0, 4.0])
    write_series(tmp_path / "pair" / "b", [0.0, 3.0, 6.0, 9.0])
    (tmp_path / "pair" / "b" / "notes.txt").write_text("no slice")
    return tmp_path / "pair"


def test_a_damaged_slice_costs_its_series_in_an_archive_as_in_a_folder(
    bundle: Bundle, pair: Path, tmp_path: Path
) -> None:
    (pair / "b" / "003.dcm").write_bytes(b"")
    (pair / "beside.dcm").write_bytes(b"")  # below none of the two folders
    archive = pack(pair, tmp_path / "pair.zip")
    plain, found = (rows_of(bundle, named, tmp_path / f"out-{named.name}") for named in (pair, archive))
    names = ["series_id", "status", "reason", "sick_probability"]
    one, other = (table[names].sort_values(names, ignore_index=True) for table in (plain, found))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert len(found) == 5
    assert (found["status"] == "ok").sum() == 1  # series a
    lost = found[found["reason"] != "not_an_image"].query("status == 'failed'")
    assert len(lost) == 3  # series b, its slice, and the file beside
    assert lost["series_id"].notna().sum() == 1
    assert set(lost["reason"]) == {"empty"}


def test_a_member_that_cannot_be_unpacked_costs_its_series(bundle: Bundle, pair: Path, tmp_path: Path) -> None:
    archive = pack(pair, tmp_path / "pair.zip")
    data, last = archive.read_bytes(), (pair / "b" / "003.dcm").read_bytes()
    at = data.index(last) + 300
    archive.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])  # its checksum is wrong
    found = rows_of(bundle, archive, tmp_path / "out")
    assert found["reason"].fillna("").value_counts().to_dict() == {"": 1, "corrupt": 2, "not_an_image": 1}
    assert found.query("reason == 'corrupt'")["series_id"].notna().sum() == 1


def test_a_series_above_the_limit_is_a_row(bundle: Bundle, study: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((study / "b").iterdir()):
            packed.write(path, path.name)
    size = sum(path.stat().st_size for path in (study / "b").iterdir())
    found = list_inputs(archive, volumes=True)
    tight = replace(DEFAULT_LIMITS, max_archive_bytes=size - 1)
    score(bundle, found, tmp_path / "out", device="cpu", limits=tight)
    assert read(tmp_path / "out")["reason"].tolist() == ["too_large"]


def test_the_limit_of_open_files_is_raised_to_what_the_system_allows_and_put_back() -> None:
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = (min(256, kept[1]), kept[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, few)
        with MANY_FILES, MANY_FILES:
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(65536, kept[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server on this machine that speaks S3's protocol; credentials for it are in the environment."""
    for package in ("moto", "flask", "boto3", "s3fs"):
        pytest.importorskip(package, reason="moto[server], boto3 and s3fs are not all installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


def upload(study: Path, address: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=address)
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(path for path in study.rglob("*") if path.is_file()):
        client.upload_file(str(path), BUCKET, f"in/{path.relative_to(study).as_posix()}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_images_and_volumes_in_an_s3_bucket(bundle: Bundle, study: Path, tmp_path: Path, store: str) -> None:
    upload(study, store)
    url = f"s3://{BUCKET}/in"
    found = rows_of(bundle, url, tmp_path / "out", path_map=tmp_path / "map.csv")
    assert_same_volumes(found, rows_of(bundle, study, tmp_path / "plain"))
    paths = pd.read_csv(tmp_path / "map.csv")["path"]
    assert len(paths) == 8
    assert paths.str.startswith(f"s3://{BUCKET}/in/").all()
    slices = image_bundle("segmentation=null")
    seen = rows_of(slices, [f"{url}/a/*", f"{url}/gone.dcm"], tmp_path / "slices")
    assert seen["status"].value_counts().to_dict() == {"ok": 3, "failed": 1}
    plain = rows_of(slices, study / "a", tmp_path / "plain-slices")
    assert sorted(seen["sick_probability"].dropna()) == sorted(plain["sick_probability"])
    assert (
        score(slices, [f"{url}/a/*", f"{url}/gone.dcm"], tmp_path / "slices", device="cpu", precision="fp32").new_rows
        == 0
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket_that_is_not_there_is_an_error_without_names(bundle: Bundle, tmp_path: Path, store: str) -> None:
    with pytest.raises(ConfigError, match="Cannot list the object store") as caught:
        score(bundle, "s3://no-such-bucket/*", tmp_path / "out")
    assert "no-such-bucket" not in str(caught.value)
