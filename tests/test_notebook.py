"""The notebook that draws a log: it runs from top to bottom and draws the figures that the log has."""

import json
import sys

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.test_log_reader import AGGRESSIVE, EARLIER

NOTEBOOK = ROOT / "plot_scripts" / "plot_log.ipynb"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """`execute(cwd)`: run the notebook, with this interpreter; returns (printed lines, number of images, curves).

    The curves are what the one panel of the first figure holds: {label: its y values}.
    """
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("LOG", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)

    def run(cwd):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        notebook.cells.append(
            nbformat.v4.new_code_cell(
                "import json\nprint(json.dumps({line.get_label(): [float(y) for y in line.get_ydata()]"
                " for line in panel.lines}), sys.executable, sep='\\n')"
            )
        )
        kernels = KernelSpecManager(kernel_dirs=[])  # none that is installed: ipykernel's own, of this python
        NotebookClient(
            notebook,
            timeout=120,
            km=AsyncKernelManager(kernel_spec_manager=kernels),
            resources={"metadata": {"path": str(cwd)}},
        ).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        printed = [output.text for output in outputs if output.output_type == "stream"]
        curves, executable = printed.pop().splitlines()
        assert executable == sys.executable
        images = [output for output in outputs if "image/png" in output.get("data", {})]
        return "".join(printed).splitlines(), len(images), json.loads(curves)

    return run


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_the_notebook_on_a_real_log(execute):
    lines, images, curves = execute(ROOT)
    events = [json.loads(line) for line in AGGRESSIVE.with_suffix(".jsonl").read_text().splitlines()]
    recorded = [event for event in events if event["event"] == "val"]
    assert lines[0] == f"{AGGRESSIVE.name}: 25 epochs, aggressive phase: 7"
    assert [[float(word) for word in line.split()] for line in lines[2:]] == [
        [event["epoch"], *(round(event[name], 4) for name in ("kl", "mi", "kl_agg"))] for event in recorded
    ]
    kl, mi, kl_agg, _ = curves
    for label, name in ((kl, "kl"), (mi, "mi"), (kl_agg, "kl_agg")):
        assert curves[label] == [event[name] for event in recorded]
    assert "z|x" in kl and mi == "MI" and "q_\\phi(z)" in kl_agg
    assert images == 2  # the run, and beside it the plain one


def test_the_notebook_on_a_log_of_earlier_code(execute, tmp_path, monkeypatch):
    log = tmp_path / "run.log"
    log.write_text(EARLIER.replace("STOP BURNING\n", ""))
    monkeypatch.setenv("LOG", str(log))
    lines, images, curves = execute(ROOT / "plot_scripts")
    assert lines[0] == "run.log: 4 epochs, aggressive phase: no end logged"
    assert lines[2].split() == ["0", "3.8495", "2.1795", "1.6700"]
    assert lines[4].split() == ["2", "0.1000", "0.0000", "0.1000"]
    assert [values[1] for values in curves.values()] == [2.5, 2.0, 0.5]
    assert images == 1
