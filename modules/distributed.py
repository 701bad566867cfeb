"""Several processes that train one model together, as `torchrun` starts them: each takes its rows of every batch.

All hold the same weights and draw the same batches by the same generator. They add up gradients and losses before
anyone looks at them, so that all clip, stop and decay alike. Noise (dropout, z, binarisation) is each one's own.
"""

import hashlib
import os
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from modules.command import UserError, processes
from modules.models.layers.shared_batch_norm import share_batch_norm

PATIENCE = timedelta(days=1)  # with a process that evaluates, or measures; one that has died is seen at once


class Team:
    """The processes of a run; with one, nothing is exchanged."""

    def __init__(self, rank=0, size=1):
        self.rank, self.size, self.first = rank, size, rank == 0
        # Of the batch that was last shared out: its rows, those here, whether they count, and which they are.
        self.batch, self.held, self.counted, self._mine = 0, 0, 1, slice(None)

    def rows(self, x):
        """(this process's rows of the batch x, the weight of each in the mean over the batch).

        A process left without a row takes the first with weight 0, so that all do the same work.
        """
        if self.size == 1:
            return x, 1 / len(x)
        self.batch, self.counted = len(x), int(self.rank < len(x))
        self._mine = slice(self.rank, None, self.size) if self.counted else slice(0, 1)
        rows = x[self._mine]
        self.held = len(rows)
        return rows, self.counted / len(x)

    def of_batch(self, function, rows):
        """What `function` makes of the rows of the whole batch, of which it returns those here.

        The rows of the other processes have no gradient.
        """
        if self.size == 1:
            return function(rows)
        whole = rows.new_zeros(self.batch, *rows.shape[1:])
        if self.counted:
            whole[self._mine] = rows.detach()
        whole = self.total(whole)
        whole[self._mine] = rows
        return function(whole)[self._mine]

    def add_up(self, parameters, *terms):
        """Sums over the whole batch of the terms [rows, ...]; gradients of the parameters become those of all rows."""
        sums = [term.detach().sum() for term in terms]
        if self.size == 1:
            return sums
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([self.counted * torch.stack(sums), *(gradient.flatten() for gradient in gradients)])
        sums, *added = self.total(flat).split([len(sums), *(gradient.numel() for gradient in gradients)])
        for gradient, total in zip(gradients, added):
            gradient.copy_(total.view_as(gradient))
        return sums.unbind()

    def total(self, tensor):
        """The tensor, added up over the processes in place."""
        if self.size > 1:
            with _all_there():
                dist.all_reduce(tensor)
        return tensor

    def share_out(self, items, function, skip=lambda item: None):
        """[function(item), a float64 scalar] of all items, each computed by one process; the others `skip` it."""
        found, count = [], 0
        for count, item in enumerate(items, start=1):
            if (count - 1) % self.size == self.rank:
                found.append(function(item))
            else:
                skip(item)
        if self.size == 1:
            return found
        everyones = torch.zeros(count, dtype=torch.float64)
        if found:
            everyones[self.rank :: self.size] = torch.stack(found).cpu()
        return self.total(everyones).unbind()

    def any_of_each(self, *flags):
        """For each flag whether a process has it set."""
        return [bool(votes) for votes in self.total(torch.tensor(flags, dtype=torch.int32))] if self.size > 1 else flags

    def agreed(self, value):
        """What the first process says, so that no two decide differently."""
        said = [value]
        if self.size > 1:
            with _all_there():
                dist.broadcast_object_list(said, device=torch.device("cpu"))
        return said[0]

    def wait(self):
        """Until every process has come here."""
        self.any_of_each(False)

    def draw_noise_of(self, seed, iteration):
        """The random numbers of an outer iteration: those of the first process go on, since a checkpoint keeps their
        state; the others' follow from seed, rank and iteration."""
        if not self.first:
            name = f"{seed} {self.rank} {iteration}".encode()
            torch.manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big"))


@contextmanager
def team_for(model):
    """Within: the team that `torchrun` has started, the model made ready for it, or this process alone.

    A process that fails does not wait for the others in the end; they see that it is gone.
    """
    if processes() == 1:
        yield Team()
        return
    with _all_there():
        dist.init_process_group("cpu:gloo,cuda:nccl" if model.device.type == "cuda" else "gloo", timeout=PATIENCE)
    team = Team(dist.get_rank(), dist.get_world_size())
    share_batch_norm(model, team)
    yield team
    dist.destroy_process_group()


@contextmanager
def _all_there():
    """Within: what PyTorch says when another process is gone becomes one line."""
    try:
        yield
    except RuntimeError as error:
        what = " ".join(str(error).split())[:100]
        raise UserError(
            f"another process of this run has ended, or cannot be reached ({what}); what it said, or the "
            "system's log, tells why; --resume goes on from the last checkpoint"
        ) from error


def has_the_word():
    """Whether no process of the team has yet said why it ends; the one that asks first has the word."""
    try:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=10)
        )
        return store.add(f"last words {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (KeyError, ValueError, RuntimeError):  # nobody there to ask
        return True
