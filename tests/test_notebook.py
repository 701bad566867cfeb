"""The notebook that draws a log: it runs from top to bottom and draws the figures that the log has."""

import json
import os
import sys

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.test_log_reader import AGGRESSIVE, EARLIER, PLAIN

NOTEBOOK = ROOT / "plot_scripts" / "plot_log.ipynb"
SYNTHETIC = ROOT / "logs" / "examples" / "synthetic"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """`execute(cwd)`: run the notebook, with this interpreter; returns (printed lines, panels of its one figure).

    A panel is (title, {label: y values} of its curves).
    """
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("LOG", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)

    def run(cwd):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        notebook.cells.append(
            nbformat.v4.new_code_cell(
                "import json\nprint(json.dumps([(panel.get_title(), {line.get_label(): [float(y) for y in "
                "line.get_ydata()] for line in panel.lines}) for panel in figure.axes]), sys.executable, sep='\\n')"
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
        panels, executable = printed.pop().splitlines()
        assert executable == sys.executable
        assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 1
        return "".join(printed).splitlines(), json.loads(panels)

    return run


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def recorded(log):
    """The validation events of a run."""
    events = [json.loads(line) for line in log.with_suffix(".jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "val"]


def test_the_notebook_draws_figure_5(execute):
    """Plain and aggressive beside each other, of the runs on the synthetic set whose logs are here."""
    lines, panels = execute(ROOT)
    logs = [SYNTHETIC / f"synthetic_aggressive{i}_kls1.00_warm10_0_0_783435.log" for i in (0, 1)]
    assert [title for title, _ in panels] == ["synthetic VAE (783435)", "synthetic aggressive (783435)"]
    for log, (_, curves) in zip(logs, panels):
        vals = recorded(log)
        heading = lines.pop(0)
        assert heading.startswith(f"{log.name}: {len(vals)} epochs, aggressive phase: ")
        assert heading.endswith("no end logged") == (log == logs[0])
        assert lines.pop(0).split() == ["epoch", "kl", "mi", "kl_agg"]
        table, lines = lines[: len(vals)], lines[len(vals) :]
        assert [[float(word) for word in line.split()] for line in table] == [
            [val["epoch"], *(round(val[name], 4) for name in ("kl", "mi", "kl_agg"))] for val in vals
        ]
        kl, mi, kl_agg, *_ = curves
        assert "z|x" in kl and mi == "MI" and "q_\\phi(z)" in kl_agg
        for label, name in ((kl, "kl"), (mi, "mi"), (kl_agg, "kl_agg")):
            assert curves[label] == [val[name] for val in vals]
    assert lines == []


def test_the_notebook_on_logs_of_the_user(execute, tmp_path, monkeypatch):
    """Also of earlier code; a relative path counts from the repository."""
    log = tmp_path / "run.log"
    log.write_text(EARLIER.replace("STOP BURNING\n", ""))
    monkeypatch.setenv("LOG", os.pathsep.join(map(str, (log, AGGRESSIVE.relative_to(ROOT), PLAIN))))
    lines, panels = execute(ROOT / "plot_scripts")
    assert lines[0] == "run.log: 4 epochs, aggressive phase: no end logged"
    assert lines[2].split() == ["0", "3.8495", "2.1795", "1.6700"]
    assert lines[4].split() == ["2", "0.1000", "0.0000", "0.1000"]
    assert f"{AGGRESSIVE.name}: 25 epochs, aggressive phase: 7" in lines
    assert [title for title, _ in panels] == ["run", "ptb aggressive (783435)", "ptb VAE (783435)"]
    assert [values[1] for values in panels[0][1].values()] == [2.5, 2.0, 0.5]
