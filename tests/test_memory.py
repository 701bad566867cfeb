"""Memory that large tensors leave is kept."""

import platform
import subprocess
import sys

import pytest

from modules.settings import REPOSITORY

PROGRAM = """
import resource, torch
from modules.training.run import prepare_device
{call}
def use():
    torch.ones(2**24)       # 64 MiB: more than glibc keeps by itself
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
before = faults()
for _ in range(10):
    use()
print(faults() - before)
"""


def page_faults(call):
    """Pages that a process mapped anew while it used and left the same memory ten times."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told to")
def test_the_device_of_a_command_keeps_what_tensors_leave(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # small things may settle in what is kept, so that it grows once or twice; without, all is new each time
    assert 5 * page_faults("prepare_device()") < page_faults("")


def test_another_c_library_changes_nothing(monkeypatch):
    from modules.training import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.keep_freed_memory()
