"""Every path of the scripts under a pretended GPU (`tests.pretended_gpu`), and how often they may wait for one.

Not run here: for images, methods that are the same code as for text.
"""

import dataclasses
from collections import Counter, namedtuple

import pytest
import torch

import image
import text
import toy
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.evaluation import metrics
from modules.methods import semi_amortised
from modules.models.decoders import pixelcnn_sampler
from modules.training import algorithm, run
from modules.training.algorithm import Algorithm1
from modules.training.loop import Trainer
from tests.conftest import make_image_workspace, make_workspace
from tests.pretended_gpu import PretendedGPU
from tests.test_methods_cli import METHODS

TEST_EVERY = 3
SHORT = {
    "inner_steps": 7,
    "inner_test_every": TEST_EVERY,  # an aggressive phase of one epoch, in short inner loops
    "mi_start": 100.0,
    "mi_patience": 1,
}
Script = namedtuple("Script", "main args make_workspace generate split")
TEXTS = Script(
    text.main,
    ("--dataset", "tiny", "--iw_nsamples", 5, "--train_limit", 10),
    make_workspace,
    "--decode_from",
    "modules.domains.text_domain.TextSplit",
)
IMAGES = Script(
    image.main,
    ("--dataset", "tinyimages", "--iw_nsamples", 5, "--train_limit", 9),
    make_image_workspace,
    "--sample_from",
    "modules.domains.image_domain.ImageSplit",
)
both = pytest.mark.parametrize("script", [TEXTS, IMAGES], ids=["text", "image"])


@pytest.fixture
def folder(tmp_path, script):
    return script.make_workspace(tmp_path / "workspace")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{script: (the folder of a run made on the CPU, its model)}, made when first asked for."""
    return {}


@pytest.fixture
def trained(call, models, tmp_path_factory):
    """`trained(script)`: a folder and the model of a run that was made in it on the CPU."""

    def get(script):
        if script not in models:
            folder = script.make_workspace(tmp_path_factory.mktemp("trained") / "workspace")
            ran = call(script.main, *script.args, "--epochs", 1, cwd=folder)
            assert ran.returncode == 0, ran.stderr
            (folder / "lines.txt").write_text("red green\nblue one two\none\nthree red\n")
            models[script] = folder, model_in(folder)
        return models[script]

    return get


@pytest.fixture
def short(monkeypatch):
    """Both scripts with `SHORT` in their recipes."""
    monkeypatch.setattr(text, "TEXT", dataclasses.replace(TEXT, recipe=dataclasses.replace(TEXT.recipe, **SHORT)))
    monkeypatch.setattr(image, "IMAGE", dataclasses.replace(IMAGE, recipe=dataclasses.replace(IMAGE.recipe, **SHORT)))


@pytest.fixture
def on_gpu(call):
    """`on_gpu(main, *args, cwd=...)`: a command on a pretended GPU; returns what it prints, and the GPU."""

    def run(main, *args, cwd):
        with PretendedGPU() as gpu:
            ran = call(main, *args, cwd=cwd)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout, gpu

    return run


def model_in(folder):
    (model,) = (path for path in (folder / "models").rglob("*.pt") if "resume" not in path.name)
    return model


# ---------------------------------------------------------------------- the budget of waits


class Meter:
    """Within a pretended GPU: the waits in all calls of some functions, by name, and what the calls returned."""

    def __init__(self, monkeypatch, gpu):
        self.monkeypatch, self.gpu = monkeypatch, gpu
        self.waits, self.returned = {}, {}

    def watch(self, owner, name):
        waits, returned = self.waits.setdefault(name, []), self.returned.setdefault(name, [])

        real = getattr(owner, name)

        def watched(*args, **kwargs):
            before = self.gpu.waits.copy()
            returned.append(real(*args, **kwargs))
            waits.append(self.gpu.waits - before)
            return returned[-1]

        self.monkeypatch.setattr(owner, name, watched)

    def total(self, name):
        return sum(self.waits[name], Counter())


def train_within_budget(call, monkeypatch, folder, script, flags=()):
    """Train for an aggressive and a joint epoch, and check the waits of all that is not a report."""
    with PretendedGPU() as gpu:
        meter = Meter(monkeypatch, gpu)
        for owner, name in [
            (Algorithm1, "encoder_step"),
            (Algorithm1, "decoder_step"),
            (Trainer, "_train_epoch"),
            (Trainer, "_report"),
            (algorithm, "optimise_encoder"),
        ]:
            meter.watch(owner, name)
        ran = call(script.main, *script.args, "--epochs", 2, "--aggressive", 1, *flags, cwd=folder)
    assert ran.returncode == 0 and ran.stdout.count("STOP BURNING") == 1, ran.stderr
    loops = meter.returned["optimise_encoder"]
    assert len(meter.waits["_train_epoch"]) == 2 and 0 < len(loops) < len(meter.waits["decoder_step"])
    assert meter.total("encoder_step") == Counter()  # an inner step
    assert meter.total("decoder_step") == Counter()  # an outer step
    tests = sum(steps // TEST_EVERY for steps in loops)
    assert meter.total("optimise_encoder").total() == tests  # one a stop test
    besides = meter.total("_train_epoch") - meter.total("_report")
    assert besides == meter.total("optimise_encoder")  # nothing else in an epoch: none a batch
    assert {waits.total() for waits in meter.waits["_report"]} == {5}  # however many batches are looked at


@both
@pytest.mark.parametrize("flags", ["", "--inner_clip encoder --precision bf16 --nsamples 2"])
def test_waits_of_training(call, monkeypatch, folder, short, script, flags):
    train_within_budget(call, monkeypatch, folder, script, flags.split())


@both
def test_waits_of_evaluation_do_not_grow_with_the_number_of_batches(call, monkeypatch, trained, script):
    (folder, model), waits = trained(script), []
    for batch_size in (2, 9):
        with PretendedGPU() as gpu:
            meter = Meter(monkeypatch, gpu)
            for name in ("evaluate", "importance_weighted_nll"):
                meter.watch(metrics, name)
            ran = call(
                script.main, *script.args[:4], "--eval", "--load_path", model, "--batch_size", batch_size, cwd=folder
            )
        assert "iw nll: " in ran.stdout
        waits.append((meter.total("evaluate").total(), meter.total("importance_weighted_nll").total()))
    assert waits == [(7, 1), (7, 1)]


@both
def test_waits_of_reading_the_data_do_not_grow_with_the_number_of_batches(call, monkeypatch, folder, script):
    monkeypatch.setattr(run, "_train_from", lambda trainer, *rest: run.read_in(trainer.splits))
    waits = []
    for batch_size in (2, 9):
        with PretendedGPU() as gpu:
            assert call(script.main, *script.args, "--batch_size", batch_size, cwd=folder).returncode == 0
        waits.append(gpu.waits)
    assert waits[0] == waits[1]


def test_waits_of_sampling_images_do_not_grow_with_their_pixels(on_gpu, trained):
    folder, model = trained(IMAGES)
    _, gpu = on_gpu(image.main, *IMAGES.args[:2], "--sample_from", model, "--num_samples", 4, cwd=folder)
    assert sum(count for where, count in gpu.waits.items() if where.startswith("pixelcnn")) == 1  # the numbers go up


def test_greedy_decoding_waits_once_a_word(on_gpu, trained):
    folder, model = trained(TEXTS)
    _, gpu = on_gpu(
        text.main, *TEXTS.args[:2], "--decode_from", model, "--num_samples", 4, "--max_length", 5, cwd=folder
    )
    assert 1 <= sum(count for where, count in gpu.waits.items() if where.startswith("search")) <= 5


# ---------------------------------------------------------------------- every path


@pytest.mark.parametrize("flags", [*METHODS, "--encoder_from"])
def test_every_method_of_text(on_gpu, trained, workspace, flags):
    flags = [*flags.split(), trained(TEXTS)[1]] if flags == "--encoder_from" else flags.split()
    printed, _ = on_gpu(text.main, *TEXTS.args, *flags, "--epochs", 1, cwd=workspace)
    assert "iw nll: " in printed


@pytest.mark.parametrize("flags", ["--model lm", "--model savae --svi_steps 1", "--bn_gamma 0.6", "--committed_rate 2"])
def test_methods_of_images(on_gpu, image_workspace, flags):
    printed, _ = on_gpu(image.main, *IMAGES.args, *flags.split(), "--epochs", 1, cwd=image_workspace)
    assert "iw nll: " in printed
    if "savae" in flags:
        on_gpu(
            image.main,
            *IMAGES.args[:2],
            "--sample_from",
            model_in(image_workspace),
            "--reconstruct",
            3,
            cwd=image_workspace,
        )


@pytest.mark.parametrize(
    "script, orders",
    [
        (TEXTS, "--num_samples 4"),
        (TEXTS, "--num_samples 4 --decoding_strategy beam"),
        (TEXTS, "--num_samples 4 --decoding_strategy sample --top_k 3 --top_p 0.5"),
        (TEXTS, "--decode_input lines.txt"),
        (TEXTS, "--decode_input lines.txt --decode_mean"),
        (TEXTS, "--decode_input lines.txt --interpolate --steps 3"),
        (IMAGES, "--num_samples 4"),
        (IMAGES, "--reconstruct 4"),
        (IMAGES, "--interpolate 2 --steps 3"),
    ],
)
def test_generation(on_gpu, trained, script, orders):
    folder, model = trained(script)
    printed, _ = on_gpu(script.main, *script.args[:2], script.generate, model, *orders.split(), cwd=folder)
    assert "wrote " in printed


def test_encoding(on_gpu, trained):
    folder, model = trained(TEXTS)
    assert (
        "wrote " in on_gpu(text.main, "--dataset", "tiny", "--encode", "lines.txt", "--load_path", model, cwd=folder)[0]
    )


@both
def test_points_from_a_file_and_figures_of_each_example(on_gpu, trained, script):
    (folder, model), source = trained(script), "lines" if script is TEXTS else "test"
    lines = "lines.txt" if script is TEXTS else "test"
    on_gpu(script.main, *script.args[:2], "--encode", lines, "--load_path", model, cwd=folder)
    points = f"samples/{model.stem}_{source}.npz"
    assert "wrote " in on_gpu(script.main, *script.args[:2], script.generate, model, "--z", points, cwd=folder)[0]
    flags = ("--eval", "--load_path", model, "--per_example", "each.csv")
    assert "wrote each.csv" in on_gpu(script.main, *script.args[:4], *flags, cwd=folder)[0]


@pytest.mark.parametrize("mode", ["single", "multiple"])
def test_the_toy_study(on_gpu, workspace, mode):
    on_gpu(
        toy.main,
        "--dataset",
        "tiny",
        "--aggressive",
        1,
        "--plot_mode",
        mode,
        "--num_plot",
        5,
        "--max_iterations",
        1,
        cwd=workspace,
    )
    assert len(list((workspace / "plot_data" / mode).iterdir())) == 1


# ---------------------------------------------------------------------- from one device to the other


@both
def test_a_run_goes_on_with_the_random_numbers_of_the_device(on_gpu, tmp_path, script):
    """Stopped and resumed on a GPU, a run ends where it would have ended."""
    weights = []
    for stops in ([], ["--max_iterations", 1]):
        folder = script.make_workspace(tmp_path / str(len(stops)))
        if stops:
            on_gpu(script.main, *script.args, "--epochs", 1, *stops, cwd=folder)
        on_gpu(script.main, *script.args, "--epochs", 1, "--resume", cwd=folder)
        weights.append(torch.load(model_in(folder), weights_only=True)["model"])
    assert all(torch.equal(a, b) for a, b in zip(*(each.values() for each in weights)))


@both
def test_a_run_moves_from_the_cpu_to_the_gpu_and_back(call, on_gpu, folder, script):
    settings = (*script.args, "--epochs", 2)
    assert call(script.main, *settings, "--max_iterations", 1, cwd=folder).returncode == 0
    on_gpu(script.main, *settings, "--resume", "--max_iterations", 2, cwd=folder)
    ran = call(script.main, *settings, "--resume", cwd=folder)
    assert ran.returncode == 0 and "iw nll: " in ran.stdout


# ---------------------------------------------------------------------- planted faults


@both
def test_a_forgotten_move_of_the_data_is_caught(on_gpu, monkeypatch, folder, script):
    module, _, name = script.split.rpartition(".")
    real = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(script.split, lambda data, batch_size, device: real(data, batch_size))
    with pytest.raises(RuntimeError, match="at least two devices"):
        on_gpu(script.main, *script.args, "--epochs", 1, cwd=folder)


def test_a_forgotten_move_of_the_model_is_caught(on_gpu, monkeypatch, workspace):
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, device: model)
    monkeypatch.setattr("modules.models.vae.VAE.device", torch.device("cuda"))
    with pytest.raises(RuntimeError, match="at least two devices"):
        on_gpu(text.main, *TEXTS.args, "--epochs", 1, cwd=workspace)


def test_a_forgotten_move_of_random_numbers_is_caught(on_gpu, monkeypatch, trained):
    folder, model = trained(IMAGES)
    real = pixelcnn_sampler.sample
    monkeypatch.setattr(
        pixelcnn_sampler, "sample", lambda decoder, z, uniform, progress: real(decoder, z, uniform.cpu(), progress)
    )
    with pytest.raises(RuntimeError, match="at least two devices"):
        on_gpu(image.main, *IMAGES.args[:2], "--sample_from", model, "--num_samples", 4, cwd=folder)


@both
def test_a_generator_of_the_cpu_for_device_tensors_is_caught(on_gpu, monkeypatch, trained, script):
    folder, model = trained(script)
    real = metrics.reparameterize
    monkeypatch.setattr(
        metrics,
        "reparameterize",
        lambda mean, logvar, nsamples, generator: real(mean, logvar, nsamples, torch.Generator()),
    )
    with pytest.raises(RuntimeError, match="'cuda' device type for generator but found 'cpu'"):
        on_gpu(script.main, *script.args[:2], "--eval", "--load_path", model, cwd=folder)


def test_a_loss_read_in_every_inner_step_is_caught(call, monkeypatch, workspace, short):
    def encoder_step(self, x, weight, real=Algorithm1.encoder_step):
        loss = real(self, x, weight)
        loss.item()
        return loss

    monkeypatch.setattr(Algorithm1, "encoder_step", encoder_step)
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        train_within_budget(call, monkeypatch, workspace, TEXTS)


def test_random_numbers_that_a_checkpoint_forgets_are_caught(monkeypatch, on_gpu, tmp_path):
    real = Trainer._take_up
    monkeypatch.setattr(
        Trainer, "_take_up", lambda trainer, training, weights: real(trainer, {**training, "cuda_rng": None}, weights)
    )
    with pytest.raises(AssertionError):
        test_a_run_goes_on_with_the_random_numbers_of_the_device(on_gpu, tmp_path, TEXTS)


def test_an_lstm_differentiated_in_evaluation_mode_is_caught(monkeypatch, on_gpu, workspace):
    monkeypatch.setattr(semi_amortised, "_as_evaluated", metrics.evaluation_mode)
    with pytest.raises(RuntimeError, match="cudnn RNN backward"):
        on_gpu(text.main, *TEXTS.args, "--model", "savae", "--svi_steps", 1, "--epochs", 1, cwd=workspace)


# ---------------------------------------------------------------------- the pretended GPU itself


@pytest.mark.parametrize(
    "refused",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: here[there.long()],
        lambda there, here: here + there.sum(),
        lambda there, here: there.numpy(),
        lambda there, here: there.__array__(),
        lambda there, here: there.to("cpu", non_blocking=True),
        lambda there, here: there.normal_(generator=torch.Generator()),
        lambda there, here: here.normal_(generator=torch.Generator("cuda")),
        lambda there, here: torch.rand(2, device="cuda", generator=torch.Generator()),
        lambda there, here: torch.nn.functional.mse_loss(there.requires_grad_(), here).backward(),
    ],
)
def test_what_a_gpu_refuses(refused):
    with PretendedGPU():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            refused(there, here)


@pytest.mark.parametrize(
    "count, line",
    [
        (0, lambda there, here: there * 2 + torch.tensor(1.0)),
        (0, lambda there, here: there[there.long()]),
        (1, lambda there, here: float(there.sum())),
        (1, lambda there, here: bool((there > 0).all())),
        (1, lambda there, here: there.tolist()),
        (1, lambda there, here: there.cpu()),
        (1, lambda there, here: here.to(there)),
        (0, lambda there, here: here.to("cuda", non_blocking=True)),
        (1, lambda there, here: there[[0, 1]]),
        (1, lambda there, here: there[there > 0]),
        (1, lambda there, here: there.nonzero()),
        (1, lambda there, here: there.copy_(here)),
        (1, lambda there, here: torch.tensor([1.0], device="cuda")),
        (0, lambda there, here: torch.full((2,), 1.0, device="cuda")),
    ],
)
def test_what_a_gpu_is_waited_for(count, line):
    with PretendedGPU() as gpu:
        line(torch.ones(3, device="cuda"), torch.ones(3))
    assert gpu.waits.total() == count


def test_results_stay_where_they_were_computed():
    with PretendedGPU():
        there = torch.ones(3, device="cuda", requires_grad=True)
        (there.cpu() * 2).sum().backward()
        assert there.grad.device.type == "cuda" and (there * 2)[1:].device.type == "cuda"
        assert there.detach().cpu().device.type == "cpu" and torch.zeros_like(there).is_cuda
        here = torch.ones(3)
        assert torch.as_tensor(here, device="cuda").is_cuda and here.device.type == "cpu"
