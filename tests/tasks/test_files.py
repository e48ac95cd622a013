"""Data files: found, verified, refused; MNIST as it is published."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.data.files import DataFile, data_root, locate
from gru_jax.data.idx import read_idx
from gru_jax.data.npy import open_rows
from gru_jax.errors import UsageError
from gru_jax.runtime.files import stamp_of
from gru_jax.tasks import MNIST
from gru_jax.tasks.base import split_key
from gru_jax.tasks.mnist import permutation

CONTENT = b"some data"
FILE = DataFile("set/file.bin", hashlib.sha256(CONTENT).hexdigest(), "http://127.0.0.1:9/file.bin")


def test_order_of_places(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    monkeypatch.setenv("GRU_JAX_DATA", str(two))
    assert data_root(str(one)) == one
    assert data_root(None) == two
    monkeypatch.delenv("GRU_JAX_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root(None) == tmp_path / ".cache" / "gru_jax"


def test_a_named_place_must_exist(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"task\.data_dir=.*no such directory"):
        data_root(str(tmp_path / "absent"))
    monkeypatch.setenv("GRU_JAX_DATA", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"GRU_JAX_DATA=.*no such directory"):
        data_root(None)


def test_found_and_verified(tmp_path):
    path = tmp_path / FILE.path
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert locate(FILE, str(tmp_path)) == path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(UsageError, match="damaged") as raised:
        locate(FILE, str(tmp_path))
    assert FILE.sha256 in str(raised.value)
    assert path.read_bytes() == CONTENT + b"!"  # not touched


def test_no_network_says_where_to_put_it(tmp_path):
    with pytest.raises(UsageError) as raised:
        locate(FILE, str(tmp_path))
    assert FILE.url in str(raised.value)
    assert str(tmp_path / FILE.path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "set").iterdir())


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/file.bin"
        httpd.shutdown()
        thread.join()


def test_download_is_verified(tmp_path, server):
    path = locate(FILE._replace(url=server), str(tmp_path))
    assert path.read_bytes() == CONTENT
    wrong = FILE._replace(url=server, path="set/wrong.bin", sha256="0" * 64)
    with pytest.raises(UsageError, match="should have"):
        locate(wrong, str(tmp_path))
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"\0\0\x0d\1\0\0\0\1\0\0\0\0"),
     gzip.compress(b"\0\0\x08\1\0\0\0\5abc"), gzip.compress(b"\0\0\x08\1\0\0\0\5abcde")[:-9]],
    ids=["empty", "no gzip", "no header", "other type", "short", "cut gzip"],
)  # fmt: skip
def test_damaged_idx(tmp_path, content):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="idx file"):
        read_idx(path)


def test_idx(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\2\0\0\0\2\0\0\0\3abcdef"))
    np.testing.assert_array_equal(read_idx(path), np.frombuffer(b"abcdef", np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'fortran_order': False, (", b"{'descr':'<f4',b'fortran_order':False,'shape':(1,)}"]
)
def test_a_damaged_header_of_an_array_is_one_line(header, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UsageError, match=r"x\.npy: not a \.npy file \(") as error:
        open_rows(path)
    assert "\n" not in str(error.value)


def test_numbers_that_no_device_has_are_refused(tmp_path):
    for dtype in (np.longdouble, np.complex64, "S4", "M8[s]"):
        np.save(tmp_path / "x.npy", np.zeros(3, dtype))
        with pytest.raises(UsageError, match=r"x\.npy: holds .*; allowed are numbers, real ones of up to 64 bits"):
            open_rows(tmp_path / "x.npy")


def test_a_stamp_is_that_of_one_file_as_it_is(tmp_path):
    path, new = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    stamps = {stamp_of(path)}
    assert stamps == {stamp_of(path)}
    changed = path.stat().st_mtime_ns
    time.sleep(0.05)  # the clock of files ticks more slowly than that of processes
    path.write_text("two")
    os.utime(path, ns=(changed, changed))
    stamps.add(stamp_of(path))
    new.write_text("six")
    os.utime(new, ns=(changed, changed))
    new.replace(path)
    stamps.add(stamp_of(path))
    assert len(stamps) == 3
    assert {stamp.changed for stamp in stamps} == {changed}


def test_the_permutation_is_fixed():
    order = permutation()
    assert sorted(order) == list(range(784))
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest()[:16] == "8028ff1eba5833e7"


def test_mnist(data_dir):
    rows, pixels, permuted = (MNIST(layout, data_dir=str(data_dir)) for layout in ("rows", "pixels", "permuted"))
    sizes = {split: len(rows.load(split)["labels"]) for split in ("train", "valid", "test")}
    assert sizes == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert sizes == {split: rows.size(split) for split in sizes}
    test = rows.load("test")
    assert test["labels"][:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(test["labels"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    index = jnp.array([3, 0], jnp.int32)
    batches = {
        t.layout: t.batch(jax.device_put(t.load("test")), split_key("test", 0), index) for t in (rows, pixels, permuted)
    }
    by_row, by_pixel = batches["rows"].xs, batches["pixels"].xs
    assert by_row.shape == (2, 28, 28)
    assert by_pixel.shape == batches["permuted"].xs.shape == (2, 784, 1)
    np.testing.assert_array_equal(by_row.reshape(2, 784), by_pixel[..., 0])
    np.testing.assert_array_equal(batches["permuted"].xs[..., 0], by_pixel[:, permutation(), 0])
    assert (float(by_row.min()), float(by_row.max())) == (0.0, 1.0)
    assert batches["rows"].targets.tolist() == [0, 7]
