"""The figures of a run for TensorBoard, which is not among the requirements: `pip install tensorboard`."""

import time

from modules.command import UserError

TAGS = {"report": "train/{}", "val": "val/{}", "test": "test/{}", "iw": "test/iw_{}"}  # of the figures of an event
FIGURES = (
    *("loss", "reconstruction", "kl", "mi", "mi_agg", "kl_agg", "active_units"),  # of a report, mi and au are val's
    *("kl_weight", "lr", "aggressive", "encoder_steps"),
    *("nll", "ppl"),
)
EVENT_FILES = "events.out.tfevents.*"


def summary_writer():
    """The class that writes event files; raises UserError where there is none."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs the package tensorboard; `pip install tensorboard`") from None
    return SummaryWriter


def scalars(event):
    """{tag: value} of an event; figures that are not known, or not finite, are left out."""
    tag = TAGS.get(event["event"], "")
    return {tag.format(name): event[name] for name in FIGURES if tag and event.get(name) is not None}


class Scalars:
    """Scalars in a `folder`, over outer iterations; their clock is the time spent in training.

    They begin with the `events` so far, dicts, which a resumed run has kept; `purge_step` 0 makes TensorBoard forget
    what earlier processes wrote there, so nothing stands twice. Their files stay: one that is reading them would stop.
    """

    def __init__(self, folder, events):
        self.writer = summary_writer()(str(folder), purge_step=0)
        self.iteration, self.seconds = 0, 0.0
        self.started = time.time() - max((event.get("seconds", 0.0) for event in events), default=0.0)
        for event in events:
            self.write(event)

    def write(self, event):
        """Write what an event has; one without an iteration, as a test, belongs to the last that had one."""
        self.iteration, self.seconds = event.get("iteration", self.iteration), event.get("seconds", self.seconds)
        for tag, value in scalars(event).items():
            self.writer.add_scalar(tag, value, self.iteration, self.started + self.seconds)
        self.writer.flush()

    def close(self):
        """Close the file."""
        self.writer.close()
