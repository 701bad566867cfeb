"""Checkpoints: written whole or not at all, read without running anything, refused in one clear line."""

import errno
import os
import pickle

import pytest
import torch

from modules import checkpoint, files
from modules.checkpoint import load_checkpoint, save_checkpoint
from modules.command import UserError
from modules.training.records import Records
from modules.training.run_files import RunFiles

CONTENT = {
    "domain": "text",
    "model": {"w": torch.arange(6.0).view(2, 3), "large": torch.zeros(5000)},
    "vocabulary": ["<pad>", "é"],
    "config": {"nz": 2, "label": False},
    "training": {"order": None, "best_loss": float("inf")},
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "models" / "tiny" / "model.pt"
    save_checkpoint(path, CONTENT)
    return path


def refused(path, domain="text"):
    """The one line with which loading `path` ends."""
    with pytest.raises(UserError) as error:
        load_checkpoint(path, domain)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_what_is_saved_is_loaded(saved):
    loaded = load_checkpoint(saved, "text")
    assert all(torch.equal(loaded["model"][name], value) for name, value in CONTENT["model"].items())
    assert {name: loaded[name] for name in CONTENT if name != "model"} == {
        name: CONTENT[name] for name in CONTENT if name != "model"
    }


def test_saving_replaces_and_leaves_nothing_else(saved):
    save_checkpoint(saved, {**CONTENT, "vocabulary": ["new"]})
    assert load_checkpoint(saved, "text")["vocabulary"] == ["new"]
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_device_that_is_really_full(saved):
    before = saved.read_bytes()
    saved.with_name(f"{saved.name}.{os.getpid()}.tmp").symlink_to("/dev/full")  # where `replacing` writes first
    with pytest.raises(UserError, match="cannot write") as error:
        save_checkpoint(saved, {**CONTENT, "vocabulary": ["new"]})
    assert str(saved) in str(error.value) and "\n" not in str(error.value)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", ["log", "jsonl"])
def test_a_log_on_a_full_device(tmp_path, suffix):
    log = RunFiles("tiny", "run", tmp_path).log(f".{suffix}")
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot write.*No space left on device.*--resume"):
        Records(RunFiles("tiny", "run", tmp_path), words=True).write("best")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_of_the_last_steps_leaves_the_old_file(saved, monkeypatch, failing):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(saved, {**CONTENT, "vocabulary": ["new"]})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def interrupted(path, content):
        path.open("wb").write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, CONTENT)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_flipped_bit_is_noticed(saved):
    """torch itself does not compare the checksums of its archive."""
    content = bytearray(saved.read_bytes())
    content[content.index(CONTENT["model"]["w"].numpy().tobytes())] ^= 1
    saved.write_bytes(content)
    assert "checksum" in refused(saved)


def test_the_file_is_on_disk_before_it_takes_the_name(saved, monkeypatch):
    """A reader, or a power cut, meets the old file or the new one: written, synced, renamed, in this order."""
    events = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: events.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    save_checkpoint(saved, CONTENT)
    assert events == ["fsync", "replace"]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(tmp_path / "models" / "model.pt", CONTENT)


@pytest.mark.parametrize("left", [0, 1, 3, 100, 0.3, 0.6, 0.9, -1])
def test_truncated(saved, left):
    """Bytes left of the file, or the part of them."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    assert "checkpoint" in refused(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 1000,
        b"hello\n" * 100,
        b"PK\x03\x04" + b"\xff" * 500,
        bytes(range(256)) * 9,
        b"\x80\x02}q\x00.",
        b"(",
        b"\x80\x02.",
    ],
    ids=["zeros", "text", "broken zip", "bytes", "pickled dict", "torn pickle", "empty pickle"],
)
def test_no_checkpoint_at_all(tmp_path, content):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert "checkpoint" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"format": "something else", "domain": "text"},
        {"format": checkpoint.FORMAT},
        [1, 2],
        torch.zeros(3),
        None,
    ],
    ids=["empty", "no format", "another format", "no domain", "list", "tensor", "none"],
)
def test_foreign(tmp_path, content):
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    assert "checkpoint" in refused(path)


class Hostile:
    """Unpickled, this makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize(
    "write",
    [
        lambda content, path: torch.save(content, path),
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ],
    ids=["zip", "legacy", "bare pickle"],
)
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, write):
    path, mark = tmp_path / "hostile.pt", tmp_path / "mark"
    write({"format": checkpoint.FORMAT, **CONTENT, "extra": Hostile(mark)}, path)
    assert "nothing in it was run" in refused(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))  # it would have worked
    assert mark.exists()


def test_missing(tmp_path):
    assert "no such checkpoint" in refused(tmp_path / "missing.pt")


def test_folder(tmp_path):
    assert "is a folder" in refused(tmp_path)


def test_another_domain(saved):
    message = refused(saved, "image")
    assert "text script" in message and "image script" in message


@pytest.mark.parametrize(
    "number, mend",
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "permission"),
        (errno.EROFS, "another place"),
        (errno.ENOTDIR, "a file stands"),
    ],
)
def test_what_the_system_refuses_comes_with_a_mend(tmp_path, number, mend):
    path = tmp_path / "new.txt"
    with pytest.raises(UserError, match=f"{path}: .*{mend}"), files.replacing(path):
        raise OSError(number, os.strerror(number))
