"""The same runs as an array job of Slurm."""

import shlex

from modules.command import UserError
from modules.files import replacing

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=reproduce
#SBATCH --array=0-{last}
#SBATCH --signal=B:TERM@300
# Submit it from this folder, with what your cluster asks for besides:
#     sbatch --gres=gpu:1 --cpus-per-task=4 --time=24:00:00 {path}
# One task a run; a task whose run starts from another run's model makes that one first. Five minutes before the time
# is over a run saves its state and stops. Submit it again to go on: finished runs end at once. Then the tables:
#     {command} --report {report_flags}
runs=(
    {runs}
)
exec {command} --runs "${{runs[SLURM_ARRAY_TASK_ID]}}"
"""


def write_array(runs, path, command, report_flags):
    """Write the array script for `runs`: `command` makes a run of its --runs, and the tables, with `report_flags`.

    Raises UserError rather than replace a file that is no such script.
    """
    if path.exists() and "#SBATCH" not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"--slurm {path}: is there already, and no array script; name another file")
    needed = {run.needs for run in runs}
    listed = [shlex.quote(run.id) for run in runs if run not in needed]
    words = {"command": shlex.join(command), "report_flags": shlex.join(report_flags), "path": shlex.quote(str(path))}
    with replacing(path) as temporary:
        temporary.write_text(SCRIPT.format(last=len(listed) - 1, runs="\n    ".join(listed), **words))
    print(f"wrote {path}: an array of {len(listed)} tasks")
