"""PixelCache: shared, bounded, never stale, never torn."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.manifest.table import Manifest
from lepton_vision.transforms import cache as cache_module
from lepton_vision.transforms.cache import PixelCache
from lepton_vision.transforms.rows import RowTable, TextColumn

CONFIG = PreprocessConfig(size=(16, 16))


def opened(folder: Path, rows: RowTable, config: PreprocessConfig = CONFIG, *, max_gb: float = 1.0) -> PixelCache:
    cache = PixelCache.open(folder, rows, config, max_gb=max_gb)
    assert cache is not None
    return cache


def pixels_of(row: int, shape: tuple[int, ...] = (1, 16, 16)) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 65536, shape).astype(np.uint16)


@pytest.fixture
def rows(manifest: Manifest) -> RowTable:
    return RowTable.of(manifest)


def test_rows_come_back_and_outlive_the_process(tmp_path: Path, rows: RowTable) -> None:
    cache = opened(tmp_path / "cache", rows)
    assert cache.get(2) is None
    for row in (2, 9):
        cache.put(row, pixels_of(row))
    assert cache.filled == 2
    again = opened(tmp_path / "cache", rows)
    for row in (2, 9):
        got = again.get(row)
        assert got is not None
        assert (got == pixels_of(row)).all()
        got[:] = 0  # the caller's own: what is kept stays
        assert (again.get(row) == pixels_of(row)).all()
    assert again.get(0) is None


def test_black_images_are_kept_too(tmp_path: Path, rows: RowTable) -> None:
    cache = opened(tmp_path, rows)
    cache.put(0, np.zeros((1, 16, 16), np.uint16))
    got = cache.get(0)
    assert got is not None
    assert not got.any()


def test_a_torn_row_is_not_returned(tmp_path: Path, rows: RowTable) -> None:
    cache = opened(tmp_path, rows)
    cache.put(4, pixels_of(4))
    with cache.path.open("r+b") as file:
        file.seek(-5 * 512 - 100, os.SEEK_END)  # the file ends with rows 4 … 9 of 512 bytes
        file.write(b"\0" * 50)
    assert cache.get(4) is None
    cache.put(4, pixels_of(4))
    assert (cache.get(4) == pixels_of(4)).all()


@pytest.mark.parametrize("max_rows", [0, 1, 4])
def test_the_file_stays_within_its_bound(tmp_path: Path, rows: RowTable, max_rows: int) -> None:
    bound = 2 * 4096 + max_rows * (512 + 4)
    cache = PixelCache.open(tmp_path, rows, CONFIG, max_gb=bound / 1e9)
    if not max_rows:
        assert cache is None
        return
    assert cache is not None
    assert cache.rows == max_rows
    assert cache.path.stat().st_size <= bound
    for row in range(len(rows)):
        cache.put(row, pixels_of(row))
    assert [cache.get(row) is not None for row in range(len(rows))] == [row < max_rows for row in range(len(rows))]


def test_a_changed_file_or_setting_never_meets_old_pixels(tmp_path: Path, rows: RowTable) -> None:
    folder = tmp_path / "cache"
    first = opened(folder, rows)
    first.put(0, pixels_of(0))
    source = rows.locate(0).path
    facts = source.stat()
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    changed = opened(folder, rows)
    assert changed.get(0) is None
    assert [path.name for path in folder.iterdir()] == [changed.path.name]  # the stale one is gone
    assert (first.get(0) == pixels_of(0)).all()  # but whoever has it open keeps it
    other = opened(folder, rows, CONFIG.model_copy(update={"windows": ("lung",)}))
    assert other.get(0) is None
    assert other.path != changed.path


def test_mean_and_deviation_do_not_matter_to_it(tmp_path: Path, rows: RowTable) -> None:
    opened(tmp_path, rows).put(0, pixels_of(0))
    assert opened(tmp_path, rows, CONFIG.model_copy(update={"mean": (0.1,), "std": (2.0,)})).get(0) is not None


def test_parts_of_a_manifest_keep_their_own_files(tmp_path: Path, manifest: Manifest) -> None:
    folder = tmp_path / "cache"
    one, other = (RowTable.of(manifest.select(part)) for part in (range(5), range(5, 11)))
    opened(folder, one).put(0, pixels_of(1))
    opened(folder, other).put(0, pixels_of(2))
    assert (opened(folder, one).get(0) == pixels_of(1)).all()
    assert len(list(folder.iterdir())) == 2


def test_no_flipped_bit_of_a_kept_image_is_returned_and_it_is_said_once(
    tmp_path: Path, rows: RowTable, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    opened(folder, rows).put(4, pixels_of(4))
    (path,) = folder.iterdir()
    whole, start = path.read_bytes(), path.stat().st_size - (len(rows) - 4) * 512  # the file ends with the rows
    sums = 4096 + 4 * 4
    for bit in (*range(8 * start, 8 * (start + 512), 43), *range(8 * sums, 8 * (sums + 4))):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        cache = opened(folder, rows)
        caplog.clear()
        assert [cache.get(4) for _ in range(3)] == [None] * 3
        assert caplog.messages == ["An image in the cache is damaged: it is decoded anew."]
        cache.put(4, pixels_of(4))
        assert (cache.get(4) == pixels_of(4)).all()


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "count"])
def test_a_damaged_file_is_replaced(
    tmp_path: Path, rows: RowTable, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(tmp_path / "cache", rows)
    path, content = cache.path, cache.path.read_bytes()
    del cache
    damaged = {"truncated": content[:-10], "header": b"?" * 4096 + content[4096:], "empty": b""}
    damaged["count"] = content.replace(b"\n%d " % len(rows), b"\n%d " % (len(rows) + 8), 1)
    path.write_bytes(damaged[damage])
    again = opened(tmp_path / "cache", rows)
    assert "The cache of decoded images is damaged: it is made anew." in caplog.messages
    assert again.filled == 0
    again.put(9, pixels_of(9))
    assert (again.get(9) == pixels_of(9)).all()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_without_room_it_warns_and_goes_without(
    tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(handle: int, size: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cache_module, "_reserve", refuse)
    with caplog.at_level(logging.WARNING):
        assert PixelCache.open(tmp_path / "cache", rows, CONFIG, max_gb=1) is None
    assert os.strerror(code) in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_fallocate_is_filled_with_zeros(
    tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    cache = opened(tmp_path, rows)
    assert cache.path.stat().st_blocks * 512 >= 10 * 512
    assert cache.filled == 0


def test_a_file_system_without_links_works(tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    opened(tmp_path / "cache", rows).put(1, pixels_of(1))
    assert opened(tmp_path / "cache", rows).get(1) is not None
    assert len(list((tmp_path / "cache").iterdir())) == 1


def _fill(folder: Path, rows: RowTable, start: multiprocessing.synchronize.Event) -> None:
    start.wait(20)
    cache = PixelCache.open(folder, rows, CONFIG, max_gb=1)
    assert cache is not None
    for _ in range(20):
        for row in range(cache.rows):
            cache.put(row, pixels_of(row))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_that_create_and_fill_it_at_once_agree(tmp_path: Path, rows: RowTable) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Event()
    processes = [context.Process(target=_fill, args=(tmp_path / "cache", rows, start)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    cache = opened(tmp_path / "cache", rows)
    while any(process.is_alive() for process in processes):
        for row in range(cache.rows):
            got = cache.get(row)
            assert got is None or (got == pixels_of(row)).all()
    assert [process.exitcode for process in processes] == [0] * 4
    final = opened(tmp_path / "cache", rows)
    assert final.filled == len(rows)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_writer_leaves_nothing_wrong(tmp_path: Path, rows: RowTable) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Event()
    start.set()
    cache = opened(tmp_path, rows)
    process = context.Process(target=_fill, args=(tmp_path, rows, start))
    process.start()
    while not cache.filled:
        time.sleep(0.001)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    again = opened(tmp_path, rows)
    for row in range(again.rows):
        got = again.get(row)
        assert got is None or (got == pixels_of(row)).all()


def test_a_pickled_cache_maps_the_same_file(tmp_path: Path, rows: RowTable) -> None:
    cache = opened(tmp_path, rows)
    copy = pickle.loads(pickle.dumps(cache))
    copy.put(3, pixels_of(3))
    assert (cache.get(3) == pixels_of(3)).all()


@pytest.mark.parametrize("positioned", [True, False])
def test_mapped_pages_are_given_back(
    tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch, positioned: bool
) -> None:
    if not positioned:  # Windows
        monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.setattr(cache_module, "_TOUCHED_LIMIT", 1024)
    cache = opened(tmp_path, rows)
    for row in range(10):
        cache.put(row, pixels_of(row))
    for row in range(10):
        assert (cache.get(row) == pixels_of(row)).all()


def test_small_rows_do_not_map_the_whole_file(tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(tmp_path, rows)
    given_back = []

    class Map:
        def madvise(self, advice: int) -> None:
            given_back.append(advice)

    monkeypatch.setattr(cache, "_map", Map())
    for _ in range(100):  # 512 bytes each, but a fault maps up to 64 KiB around them
        for row in range(10):
            cache.put(row, pixels_of(row))
    assert len(given_back) >= 1000 * 2**16 // cache_module._TOUCHED_LIMIT


def test_a_row_is_checked_when_it_is_first_read(
    tmp_path: Path, rows: RowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    checksum = cache_module._checksum
    opened(tmp_path, rows).put(1, pixels_of(1))
    cache = opened(tmp_path, rows)
    monkeypatch.setattr(cache_module, "_checksum", lambda pixels: checked.append(1) or checksum(pixels))
    for _ in range(3):
        assert (cache.get(1) == pixels_of(1)).all()
    assert checked == [1]


def test_leftovers_of_an_interrupted_creation_are_removed_a_day_later(tmp_path: Path, rows: RowTable) -> None:
    old, new = tmp_path / ".old.pixels.tmp", tmp_path / ".new.pixels.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    opened(tmp_path, rows)
    assert (old.exists(), new.exists()) == (False, True)


def test_text_columns_keep_any_file_name() -> None:
    names = ["", "a", "Müller/β.dcm", os.fsdecode(b"\xff\xfe"), "", "z" * 300]
    column = TextColumn.of(names)
    assert len(column) == len(names)
    assert [column[row] for row in range(len(names))] == names


def test_addresses_equal_those_of_the_manifest(manifest: Manifest, rows: RowTable) -> None:
    assert [rows.locate(row) for row in range(len(rows))] == [manifest.locate(int(row)) for row in rows.index]
    assert len(rows) == 10
    assert 3 not in rows.index
