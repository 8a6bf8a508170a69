"""TorchScript archives: read like `torch.jit.load` would, and harmless whatever is inside."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile

import pytest
import torch
from torch import nn

from cast_ray.errors import UserError
from cast_ray.weights.read import read_checkpoint


class Tower(nn.Module):
    """Parameters in submodules, a shared module, a buffer, and a parameter that is part of a storage."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.again = self.first[1]
        self.table = nn.Parameter(torch.randn(10, 4)[2:5])
        self.register_buffer("turned", torch.randn(4, 3).t())
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.again(self.first(x) + self.table) * self.scale + self.turned.sum()


@pytest.fixture
def archive(tmp_path):
    """A traced module in half precision, as OpenAI publishes CLIP, and its state dict."""
    path = tmp_path / "ViT-B-16.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Tower(), torch.randn(3, 3)).half()
        torch.jit.save(traced, path)
    return path, traced.state_dict()


def rewritten(path, changes):
    """The archive with some records replaced."""
    with zipfile.ZipFile(path) as old:
        records = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in records.items():
            new.writestr(name, changes.get(name.split("/", 1)[1], content))
    return path


def pickled(body):
    return b"\x80\x02" + body + b"."


def test_tensors_are_those_that_torch_loads(archive):
    path, expected = archive
    found = read_checkpoint(path)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_payload_in_the_module_tree_is_refused_and_not_run(archive, tmp_path):
    trace = tmp_path / "was_executed"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    path = rewritten(archive[0], {"data.pkl": pickle.dumps(Payload(), protocol=2)})
    with pytest.raises(UserError, match=r"refused: its pickle asks for 'posix\.mkdir'"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins\neval", "os\nsystem", "torch\nload", "torch.jit._pickle\nexec", "collections\nnamedtuple"),
        *("torch._utils\n_rebuild_tensor_v3", "copyreg\n_reconstructor", "__torch\nX"),
    ],
)
def test_only_names_that_weights_need_exist(archive, name):
    path = rewritten(archive[0], {"data.pkl": pickled(b"c" + name.encode() + b"\n")})
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(path)


def test_stubs_cannot_be_altered_from_within(archive):
    before = read_checkpoint(archive[0])
    copy = archive[0].with_name("copy.pt")
    attacks = {
        # BUILD with a dictionary and with slots, on a stub, on a class and on what a stub returns.
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__call__K\x01sb",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__K\x01s\x86b",
        b"c__torch__\nX\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR}X\x04\x00\x00\x00sizeK\x01sb",
    }
    for attack in attacks:
        copy.write_bytes(archive[0].read_bytes())
        with pytest.raises(UserError, match="cannot be read"):
            read_checkpoint(rewritten(copy, {"data.pkl": pickled(attack)}))
    after = read_checkpoint(archive[0])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_tree_that_contains_itself_ends(archive):
    tree = b"c__torch__\nX\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub"
    assert read_checkpoint(rewritten(archive[0], {"data.pkl": pickled(tree)})) == {}


def tensor_pickle(*, storage="FloatStorage", key="0", elements=4, offset=0, size=(2, 2), stride=(2, 1)):
    """An object with one tensor, as torch.jit.save writes it."""
    out = io.BytesIO()

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return value.pid if isinstance(value, Storage) else None

    class Storage:
        pid = ("storage", storage, key, "cpu", elements)

    Writer(out, protocol=2).dump([Storage(), offset, size, stride])
    # A list of arguments becomes a call: the pickle protocol allows no shorter way to name a stranger's function.
    body = out.getvalue()[2:-1]
    arguments = body.split(b"]", 1)[1].lstrip(b"q\x00")
    return pickled(
        b"c__torch__\nX\n)\x81}X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\n" + arguments[:-1] + b"tRsb"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1},
        {"size": (3, 2)},
        {"size": (10**12,), "stride": (0,)},
        {"size": (-1, 2)},
        {"size": (2,)},
        {"stride": (2, 2**62)},
        {"elements": 10**15},
        {"elements": 3},
        {"storage": "QUInt8Storage"},
        {"key": "../../etc/passwd"},
        {"key": "99"},
        {"offset": True},
    ],
    ids=str,
)
def test_tensors_that_lie_outside_their_storage_are_refused(archive, change):
    good = {"data.pkl": tensor_pickle(), "data/0": struct.pack("<4f", 1, 2, 3, 4)}
    assert torch.equal(read_checkpoint(rewritten(archive[0], good))["t"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(rewritten(archive[0], {**good, "data.pkl": tensor_pickle(**change)}))


def test_compressed_records_are_refused_before_they_take_memory(archive, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/constants.pkl", b"")
        bomb.writestr("x/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="compressed or larger than it can be"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_archives_that_were_cut_off_are_named(archive, share):
    content = archive[0].read_bytes()
    archive[0].write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"ViT-B-16\.pt"):
        read_checkpoint(archive[0])


def test_damaged_bytes_are_noticed(archive):
    content = bytearray(archive[0].read_bytes())
    with zipfile.ZipFile(archive[0]) as file:
        info = next(info for info in file.infolist() if "/data/" in info.filename and info.file_size > 8)
        position = content.index(file.read(info))
    content[position] ^= 0xFF
    archive[0].write_bytes(bytes(content))
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(archive[0])


@pytest.mark.parametrize(
    "put",
    [b"r" + struct.pack("<I", 2**24), b"q\xff", b"p16777216\n"],
    ids=["LONG_BINPUT", "BINPUT", "PUT"],
)
def test_memo_that_would_take_memory_is_refused(archive, put):
    path = rewritten(archive[0], {"data.pkl": pickled(b"c__torch__\nX\n)\x81" + put)})
    with pytest.raises(UserError, match="memo index"):
        read_checkpoint(path)


def test_module_tree_of_impossible_size_is_refused(archive):
    path = rewritten(archive[0], {"data.pkl": pickled(b"N0" * 3_000_000 + b"c__torch__\nX\n)\x81")})
    with pytest.raises(UserError, match="larger than it can be"):
        read_checkpoint(path)


def test_tensor_does_not_keep_the_storage_that_it_is_part_of(archive):
    part = {"data.pkl": tensor_pickle(size=(2,), stride=(1,), offset=1), "data/0": struct.pack("<4f", 1, 2, 3, 4)}
    tensor = read_checkpoint(rewritten(archive[0], part))["t"]
    assert tensor.tolist() == [2.0, 3.0]
    assert tensor.untyped_storage().nbytes() == tensor.nbytes
