"""prepare_data.py from the command line to the files in datasets/, with mirrors that tests make up."""

import errno
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

import prepare_data
from modules.command import UserError
from modules.data import download, omniglot, synthetic
from modules.data import prepare as preparation
from modules.data.download import UPSTREAM, Source
from modules.data.prepare import prepare, prepare_each
from tests.test_omniglot import TINY, make_tensors, write_archive, write_mat

pytest_plugins = "tests.http_server"  # its fixtures

SCRIPT = Path(prepare_data.__file__)
YAHOO = {"yahoo.train.txt": "how are you ?\nfine .\n", "yahoo.valid.txt": "é\n", "yahoo.test.txt": "b\n"}
YELP = {"yelp.train.txt": "1\tgood\n0\tbad\n", "yelp.valid.txt": "1\tfine\n", "yelp.test.txt": "0\tno\n"}
WORDS_13, WORDS_14 = "word " * 13, "word " * 14  # the longest line of ptb_short, and one that is too long for it
PTB = {
    "ptb.train.txt": f" a b c\n a b c d \n{WORDS_14}\n {WORDS_13}\n e f g h\n",
    "ptb.valid.txt": f"{WORDS_14}\n c d e f\n",
    "ptb.test.txt": " d e f g\n d\n",
}
PTB_SHORT = {
    "ptb_short.train.txt": f" a b c d \n {WORDS_13}\n e f g h\n",
    "ptb_short.valid.txt": " c d e f\n",
    "ptb_short.test.txt": " d e f g\n",
}
SYNTHETIC = {"synthetic_train.txt": "".join(f"{n} 2 3\n" for n in range(2005)), "synthetic_test.txt": "4 5 6\n"}


def pack(path, files, folder="some_data"):
    """Write a tar.gz with `files`, {name: text or bytes}, in a folder."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tensor_file(tensors):
    """The bytes of a tensor file."""
    out = io.BytesIO()
    torch.save(tensors, out)
    return out.getvalue()


@pytest.fixture
def mirror(tmp_path):
    """A mirror folder, as --mirror names it, with a small version of everything."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    pack(folder / "yahoo_data.tar.gz", YAHOO, "yahoo_data")
    pack(folder / "yelp_data.tar.gz", YELP, "yelp_data")
    pack(folder / "synthetic_data.tar.gz", SYNTHETIC, "synthetic_data")
    pack(folder / "omniglot_data.tar.gz", {"omniglot.pt": tensor_file(make_tensors())}, "omniglot_data")
    for name, content in PTB.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def root(tmp_path):
    """The folder of data sets."""
    return tmp_path / "datasets"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run main() with the given arguments in a fresh folder."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
        prepare_data.main()

    return run


@pytest.fixture
def quick_recipe(monkeypatch):
    """Generate meaningless sentences of the right shape, at once."""
    monkeypatch.setattr(synthetic, "generate", lambda: np.arange(200_000).reshape(20_000, 10))


def tree(folder):
    """{relative name: bytes} of all files below a folder, hidden ones too, but for the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def names(folder):
    """The sorted names of what is in a folder of data sets, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def contents(files):
    """The bytes of {name: text}."""
    return {name: text.encode() for name, text in files.items()}


# ---------------------------------------------------------------- the whole command


def test_all_from_a_folder(run, mirror, root, capsys):
    run("--mirror", mirror)
    assert tree(root / "yahoo_data") == contents(YAHOO)
    assert tree(root / "yelp_data") == contents(YELP)
    assert tree(root / "ptb_data") == contents(PTB)
    assert tree(root / "ptb_short_data") == contents(PTB_SHORT)
    assert len((root / "synthetic_data" / "synthetic_train.txt").read_text().splitlines()) == 5
    loaded = torch.load(root / "omniglot_data" / "omniglot.pt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(loaded, make_tensors()))
    assert names(root) == sorted(f"{name}_data" for name in preparation.NAMES)
    out = capsys.readouterr().out
    assert "yahoo: ready, datasets/yahoo_data (2 / 1 / 1 lines, expected: 100,000 / 10,000 / 10,000, made from" in out
    assert "images, made from omniglot_data.tar.gz" in out


def test_all_from_a_server_with_sums(mirror, root, server):
    for path in mirror.iterdir():
        server.add(f"/data/{path.name}", path.read_bytes())
    server.add(
        "/data/SHA256SUMS",
        "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in mirror.iterdir()
        ).encode(),
    )
    prepare_each(preparation.NAMES, Source(server.url + "/data", root / "downloads"), root)
    assert tree(root / "yelp_data") == contents(YELP)
    assert names(root) == sorted(f"{name}_data" for name in preparation.NAMES)


def test_all_goes_on_when_one_fails(run, mirror, root, capsys):
    (mirror / "yelp_data.tar.gz").unlink()
    with pytest.raises(UserError, match="1 of 6 data sets could not be prepared: yelp"):
        run("--mirror", mirror)
    assert names(root) == ["omniglot_data", "ptb_data", "ptb_short_data", "synthetic_data", "yahoo_data"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "yelp" in line]
    assert len(lines) == 1
    assert "yelp_data.tar.gz is not in" in lines[0]
    assert "save https://drive.google.com/uc?export=download&id=1FT49oLNV8syhmGXEgiK6XTjEfMNqqEJJ as" in lines[0]
    assert "--dataset yelp --mirror DIR" in lines[0]


def command(*arguments, cwd):
    """Run the script as a user does."""
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def test_exit_codes_of_the_command(tmp_path, mirror):
    (mirror / "yahoo_data.tar.gz").write_bytes(b"<!DOCTYPE html>")
    failed = command("--dataset", "yahoo", "--mirror", mirror, cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    assert "yahoo_data.tar.gz: a web page, not data" in failed.stderr
    assert command("--dataset", "ptb", "--mirror", "mirror", cwd=tmp_path).returncode == 0
    assert tree(tmp_path / "datasets") == {f"ptb_data/{name}": text.encode() for name, text in PTB.items()}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "yaho"], "invalid choice: 'yaho'"),
        (["--dataset", "yelp", "--generate"], "--generate is for"),
        (["--miror", "x"], "--miror"),
    ],
)
def test_mistyped_arguments(run, root, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not root.exists()


def test_a_mirror_that_is_missing(run, root):
    with pytest.raises(UserError, match="--mirror nowhere: neither a folder"):
        run("--mirror", "nowhere")
    with pytest.raises(UserError, match="--mirror http://.: neither a folder"):
        run("--mirror", "http://[")


def test_a_broken_download_is_not_replaced_by_another_way(root, server, tmp_path, monkeypatch, capsys, quick_recipe):
    """Offline, the synthetic set is generated; but what has come by half comes whole with the same command."""
    name = "synthetic_data.tar.gz"
    large = {**SYNTHETIC, "unused": np.random.default_rng(0).bytes(2**20)}
    content = pack(tmp_path / name, large, "synthetic_data").read_bytes()
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setitem(UPSTREAM, name, (server.add("/set", content, drops=[len(content) - 1]), None))
    source = Source(None, root / ".downloads")
    with pytest.raises(UserError, match=f"{name}: .*; the same command goes on$"):
        prepare("synthetic", source, root)
    assert names(root) == [".downloads"]
    prepare("synthetic", source, root)
    assert names(root) == ["synthetic_data"] and f"made from {name}" in capsys.readouterr().out


def test_a_mirror_with_another_version_is_remarked_on(root, mirror, capsys):
    prepare("ptb", Source(str(mirror), root / ".downloads"), root)
    remarks = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in remarks] == list(PTB)
    assert "not the published file: md5 checksum" in remarks[0]


def test_no_network(root, monkeypatch, capsys, quick_recipe, deaf_host):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("https_proxy", f"http://{deaf_host}")
    with pytest.raises(UserError, match="5 of 6 .*: yahoo, yelp, omniglot, ptb, ptb_short"):
        prepare_each(preparation.NAMES, Source(None, root / "downloads"), root)
    assert names(root) == ["synthetic_data"]
    out, err = capsys.readouterr()
    assert "cannot download synthetic_data.tar.gz: drive.google.com gives ProxyError" in out
    assert "made from the recipe of the paper" in out
    assert [line.split(":")[1] for line in err.splitlines()] == [f" {name}" for name in preparation.NAMES[1:]]
    for name, line in zip(preparation.NAMES[1:], err.splitlines()):
        assert f"--dataset {name} --mirror DIR" in line


# ---------------------------------------------------------------- complete or not at all


def test_a_complete_data_set_is_left_alone(run, mirror, root, capsys):
    run("--mirror", mirror)
    before = tree(root)
    for path in mirror.iterdir():
        path.unlink()
    run("--mirror", mirror)
    assert tree(root) == before
    assert capsys.readouterr().out.count("already there") == len(preparation.NAMES)


@pytest.mark.parametrize(
    "file, content",
    [
        ("yahoo.valid.txt", ""),
        ("yahoo.valid.txt", "\n \n"),
        ("yahoo.train.txt", b"caf\xe9\n"),
        ("yahoo.train.txt", "<html>no</html>"),
        ("yahoo.test.txt", YAHOO["yahoo.valid.txt"]),
        ("yahoo.train.txt", None),
        ("yahoo.valid.txt", None),
        ("yahoo.test.txt", None),
    ],
)  # None: not in the archive
def test_bad_text_is_named_and_not_installed(mirror, root, file, content):
    files = {**YAHOO, file: content}
    pack(mirror / "yahoo_data.tar.gz", {name: text for name, text in files.items() if text is not None})
    with pytest.raises(UserError, match=file):
        prepare("yahoo", Source(mirror, root), root)
    assert tree(root) == {}


def test_an_archive_without_a_folder_and_with_other_files(mirror, root):
    pack(mirror / "yahoo_data.tar.gz", {"._yahoo.train.txt": "x", "README": "x", **YAHOO}, folder="")
    prepare("yahoo", Source(mirror, root), root)
    assert tree(root / "yahoo_data") == contents(YAHOO)


def test_yelp_needs_labels(mirror, root):
    pack(mirror / "yelp_data.tar.gz", {**YELP, "yelp.test.txt": "0\tno\nno label\n"})
    with pytest.raises(UserError, match="yelp.test.txt, line 2: not a label, a tab and a text"):
        prepare("yelp", Source(mirror, root), root)


def test_an_incomplete_data_set_survives_a_failure_and_is_then_set_aside(mirror, root, capsys):
    own = root / "yahoo_data" / "yahoo.train.txt"
    own.parent.mkdir(parents=True)
    own.write_text("my own\n")
    archive = (mirror / "yahoo_data.tar.gz").read_bytes()
    (mirror / "yahoo_data.tar.gz").write_bytes(archive[:100])
    with pytest.raises(UserError, match="damaged, cut short"):
        prepare("yahoo", Source(mirror, root), root)
    assert tree(root) == {"yahoo_data/yahoo.train.txt": b"my own\n"}
    (mirror / "yahoo_data.tar.gz").write_bytes(archive)
    prepare("yahoo", Source(mirror, root), root)
    assert tree(root / "yahoo_data") == contents(YAHOO)
    (aside,) = root.glob("yahoo_data.*.old")
    assert tree(aside) == {"yahoo.train.txt": b"my own\n"}
    out = capsys.readouterr().out
    assert "was not complete (yahoo.valid.txt is missing" in out
    assert "what was there is now" in out


def test_a_disk_that_refuses_is_one_line(mirror, root, monkeypatch):
    def copy(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(preparation.shutil, "copyfile", copy)
    with pytest.raises(UserError, match="cannot write .*ptb.train.txt: No space left on device; make room there"):
        prepare("ptb", Source(mirror, root), root)
    assert tree(root) == {}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(root, server, tmp_path, sent):
    server.add("/yahoo_data.tar.gz", bytes(100_000), stalls=[50_000])
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--dataset", "yahoo", "--mirror", server.url],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: server.requests)
    process.send_signal(sent)
    assert process.communicate(timeout=60)[1].strip() == "interrupted: the same command goes on from here"
    assert process.returncode == 130 and names(root) == []


def test_two_at_once_make_a_set_once(mirror, root, capsys):
    asked, go_on = [], threading.Event()

    class SlowSource(Source):
        def fetch(self, name):
            asked.append(name)
            go_on.wait(20)
            return super().fetch(name)

    both = [threading.Thread(target=prepare, args=("yahoo", SlowSource(mirror, root), root)) for _ in range(2)]
    for thread in both:
        thread.start()
    wait_until(lambda: asked)
    time.sleep(0.2)  # for the second to ask too, if it did not wait
    go_on.set()
    for thread in both:
        thread.join()
    assert asked == ["yahoo_data.tar.gz", "SHA256SUMS"]
    assert [": ready" in line for line in capsys.readouterr().out.splitlines()] == [True, False]
    assert tree(root) == {f"yahoo_data/{name}": text.encode() for name, text in YAHOO.items()}


def wait_until(condition, seconds=20):
    """Wait until `condition()` holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# ---------------------------------------------------------------- synthetic


@pytest.mark.parametrize("valid, kept", [(None, False), ("7 8 9\n", True), (SYNTHETIC["synthetic_test.txt"], False)])
def test_validation_is_held_out_where_there_is_none(mirror, root, capsys, valid, kept):
    pack(mirror / "synthetic_data.tar.gz", {**SYNTHETIC, **({"synthetic_valid.txt": valid} if valid else {})})
    prepare("synthetic", Source(mirror, root), root)
    lines = SYNTHETIC["synthetic_train.txt"].splitlines(keepends=True)
    assert tree(root / "synthetic_data") == contents(
        {
            "synthetic_train.txt": "".join(lines if kept else lines[:5]),
            "synthetic_valid.txt": valid if kept else "".join(lines[5:]),
            "synthetic_test.txt": SYNTHETIC["synthetic_test.txt"],
        }
    )
    assert kept != ("the last 2,000 of 2,005 training lines are now synthetic_valid.txt" in capsys.readouterr().out)


@pytest.mark.parametrize(
    "files, message",
    [
        (None, "synthetic_data.tar.gz is not in"),
        ({**SYNTHETIC, "synthetic_train.txt": "1 2 3\n"}, "too few to hold out"),
        ({**SYNTHETIC, "synthetic_test.txt": "1 two 3\n"}, "synthetic_test.txt, line 1: not a row of integers"),
        ({"synthetic_train.txt": SYNTHETIC["synthetic_train.txt"]}, "synthetic_test.txt is missing"),
    ],
)
def test_generated_where_it_cannot_be_had(mirror, root, capsys, quick_recipe, files, message):
    (mirror / "synthetic_data.tar.gz").unlink()
    if files:
        pack(mirror / "synthetic_data.tar.gz", files)
    prepare("synthetic", Source(mirror, root), root)
    found = tree(root / "synthetic_data")
    assert {name: content.count(b"\n") for name, content in found.items()} == {
        "synthetic_train.txt": 16_000,
        "synthetic_valid.txt": 2_000,
        "synthetic_test.txt": 2_000,
    }
    assert found["synthetic_valid.txt"].startswith(b"160000 160001 ")
    out = capsys.readouterr().out
    assert message in out and "made from the recipe of the paper" in out


def test_generated_on_request(run, mirror, root, capsys, quick_recipe):
    run("--dataset", "synthetic", "--generate", "--mirror", mirror)
    assert (root / "synthetic_data" / "synthetic_train.txt").read_bytes().startswith(b"0 1 2 3")
    run("--dataset", "synthetic", "--generate", "--mirror", mirror)
    assert "move it away to make it anew" in capsys.readouterr().out


# ---------------------------------------------------------------- omniglot


@pytest.fixture
def no_tensors(mirror):
    """The mirror without the ready tensors."""
    (mirror / "omniglot_data.tar.gz").unlink()
    return mirror


def load(root):
    """The three tensors that were prepared."""
    return omniglot.load_tensors(root / "omniglot_data" / "omniglot.pt")


def test_omniglot_from_the_mat_file(no_tensors, root, capsys):
    write_mat(no_tensors / "chardata.mat", np.full((2010, 28, 28), 0.5, np.float32), np.ones((3, 28, 28), np.float32))
    prepare("omniglot", Source(no_tensors, root), root)
    assert [len(images) for images in load(root)] == [10, 2000, 3]
    out = capsys.readouterr().out
    assert "omniglot_data.tar.gz is not in" in out
    assert "made from chardata.mat; omniglot_data" in out


def test_omniglot_from_the_images_where_the_mat_file_is_bad(no_tensors, root, capsys, monkeypatch):
    scipy.io.savemat(no_tensors / "chardata.mat", {"data": np.zeros((2, 2))})
    files = "images_background.zip", "images_evaluation.zip"
    write_archive(no_tensors / files[0], [0, 1])
    write_archive(no_tensors / files[1], [2, 3, 4, 5])
    assert list(files) in preparation.WAYS["omniglot"]
    original = preparation.omniglot.from_images
    monkeypatch.setattr(preparation.omniglot, "from_images", lambda paths: original(paths, TINY))
    prepare("omniglot", Source(no_tensors, root), root)
    assert [len(images) for images in load(root)] == [14, 4, 10]
    out = capsys.readouterr().out
    assert "chardata.mat: no numeric field 'data'" in out
    assert "made from images_background.zip and images_evaluation.zip" in out


def test_omniglot_that_cannot_be_had(no_tensors, root):
    write_archive(no_tensors / "images_background.zip", [0])  # one of the two archives is not enough
    with pytest.raises(UserError, match="evaluation.zip is not in .* as chardata.mat, or .* as images_background.zip"):
        prepare("omniglot", Source(no_tensors, root), root)
    assert tree(root) == {}


def test_a_damaged_omniglot_is_made_anew(mirror, root):
    (root / "omniglot_data").mkdir(parents=True)
    (root / "omniglot_data" / "omniglot.pt").write_bytes(b"damaged")
    prepare("omniglot", Source(mirror, root), root)
    assert len(load(root)) == 3
    (aside,) = root.glob("omniglot_data.*.old")
    assert tree(aside) == {"omniglot.pt": b"damaged"}
