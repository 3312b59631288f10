"""How batches are cut, gathered and varied, and what makes steps faster without changing what they compute."""

import dataclasses

import numpy as np
import pytest
import torch
from recomputed import capture_by_recomputing
from runs import DROPPING, finished, images, recipe, same

from slimnet.data import ImageData
from slimnet.errors import SlimnetError, UsageError
from slimnet.models import build
from slimnet.training import train
from slimnet.training.loop import cuda_graph_step
from slimnet.training.loop.batch_order import BatchOrder
from slimnet.training.loop.batches import HostBatches, ResidentBatches, batches_of, moved
from slimnet.training.loop.cuda_graph_step import WARM_UP, wanted
from slimnet.training.loop.distributed import ALONE, Ranks
from slimnet.training.recipe.machine_settings import Tuning, compiler_errors_reported, gpu_settings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def mapped(data: ImageData, folder) -> ImageData:
    """The same data with its pixels in a file."""
    path = folder / "pixels"
    data.x_train.numpy().tofile(path)
    pixels = np.memmap(path, np.uint8, "r+", shape=tuple(data.x_train.shape))
    return dataclasses.replace(data, x_train=torch.from_numpy(pixels), mapped=True)


# ---- order


@pytest.mark.parametrize("count", [2, 5])
def test_the_parts_of_a_batch_make_up_the_batch(count):
    """Also where a pass ends within a batch."""
    whole = BatchOrder(13, 10, seed=2, crop=3)
    parts = [BatchOrder(13, 10, seed=2, crop=3, part=(number, count)) for number in range(count)]
    for iteration in range(9):
        pieces = zip(*(part.draw(iteration) for part in parts), strict=True)
        assert all(map(torch.equal, map(torch.cat, pieces), whole.draw(iteration)))


def test_crops_change_neither_the_order_nor_the_flips():
    plain, cropped = BatchOrder(13, 5, seed=2), BatchOrder(13, 5, seed=2, crop=4)
    for iteration in range(9):
        assert all(map(torch.equal, plain.batch(iteration), cropped.batch(iteration)))
        assert not plain.draw(iteration).shifts.any()


def test_shifts_take_every_value_about_as_often():
    """Nine values for each axis, 10,000 draws: each comes 1,111 times, give or take five standard deviations."""
    shifts = BatchOrder(10_000, 10_000, seed=0, crop=4).draw(0).shifts
    assert shifts.shape == (10_000, 2)
    for axis in range(2):
        counts = (shifts[:, axis] + 4).bincount()
        assert len(counts) == 9
        assert (counts - 1111).abs().max() < 160


# ---- images


@pytest.mark.parametrize("channels", [1, 3])
def test_moved_images_are_padded_images_cropped(channels):
    """Oracle: NumPy's padding and slicing, image by image, at every shift."""
    shifts = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    pixels = torch.randint(0, 256, (len(shifts), 6, 5, channels), dtype=torch.uint8)
    padded = np.pad(pixels.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = moved(pixels, shifts, 2)
    for number, (down, right) in enumerate((shifts + 2).tolist()):
        assert np.array_equal(found[number].numpy(), padded[number, down : down + 6, right : right + 5])


@pytest.mark.parametrize("crop", [8, 2**62])
def test_images_that_would_be_moved_out_of_sight_are_refused(crop):
    with pytest.raises(UsageError, match=f"crop is {crop}, but images of 8 × 8 pixels moved that far show nothing"):
        train(recipe(crop=crop), images())


def test_batches_are_normalised_as_the_data_says_and_lie_channels_last():
    """Oracle: ImageData.normalise, bit for bit."""
    data, plan = images(), recipe()
    batches = ResidentBatches(data, plan, CPU, (0, 1))
    pixels, labels = batches.assemble(batches.bring(4))
    numbers, _ = BatchOrder(12, 5, seed=0).batch(4)
    assert torch.equal(pixels, data.normalise(data.x_train[numbers]))
    assert torch.equal(labels, data.y_train[numbers])
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_mapped_images_train_as_those_in_memory_do(tmp_path):
    """Read ahead from a file, and taken up in the middle: bit for bit the same."""
    plan, data = recipe(iterations=11, flips=True, crop=2), images()
    on_disk = mapped(data, tmp_path)
    assert isinstance(batches_of(on_disk, plan, CPU, (0, 1)), HostBatches)
    assert isinstance(batches_of(data, plan, CPU, (0, 1)), ResidentBatches)
    run = train(plan, on_disk, every=4)
    next(run)
    other = train(plan, on_disk, every=4, state=run.state())
    assert same(finished(train(plan, data)), finished(run))
    assert same(run.model.state_dict(), finished(other))


# ---- precision


def test_bf16_computes_in_bfloat16_over_float32_weights():
    """Oracle: autocast written out by hand; weights and optimiser stay float32, and scores are rounded."""
    data, plan = images(), recipe(iterations=1, precision="bf16", optimiser="sgd", momentum=0.0)
    run = train(plan, data)
    model = build(plan.arch, plan.arch_args)
    model.load_state_dict(run.model.state_dict())
    numbers, _ = BatchOrder(12, 5, seed=0).batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(data.normalise(data.x_train[numbers]))
    assert scores.dtype == torch.bfloat16
    torch.nn.functional.cross_entropy(scores.float(), data.y_train[numbers]).backward()
    expected = {name: (each - 0.1 * each.grad).detach() for name, each in model.named_parameters()}
    finished(run)
    found = dict(run.model.named_parameters())
    assert {each.dtype for each in found.values()} == {torch.float32}
    torch.testing.assert_close({name: each.detach() for name, each in found.items()}, expected)
    exact = finished(train(dataclasses.replace(plan, precision="fp32"), data))
    assert not all(torch.equal(exact[name], each) for name, each in found.items())


# ---- what is asked of the machine


def test_a_cuda_graph_is_used_where_it_can_be_and_refused_where_it_cannot():
    plan, adagrad = recipe(batch_size=4), recipe(batch_size=4, optimiser="adagrad")
    assert wanted(plan, Tuning(), CUDA, ALONE)
    assert not wanted(plan, Tuning(cuda_graph=False), CUDA, ALONE)
    for arguments, message in (
        ((plan, CPU, ALONE), "there are none on cpu"),
        ((plan, CUDA, Ranks(0, 2)), "several processes cannot share one"),
        ((adagrad, CUDA, ALONE), "adagrad cannot be captured"),
    ):
        chosen, device, ranks = arguments
        assert not wanted(chosen, Tuning(), device, ranks)
        with pytest.raises(UsageError, match=f"no CUDA graph is possible: {message}"):
            wanted(chosen, Tuning(cuda_graph=True), device, ranks)


@pytest.mark.parametrize("changes", [{}, {"optimiser": "sgd", "weight_decay": 1e-3}, {"optimiser": "rmsprop"}])
def test_captured_steps_are_those_of_the_plain_loop(monkeypatch, changes, tmp_path):
    """A graph needs a GPU; here what it would replay is computed instead, on the tensors that it would read.

    So this shows that batches reach the graph's own tensors, and that every drop is captured anew.
    """
    plan, data = recipe(iterations=12, drops=(6, 9), flips=True, **changes), images()
    expected = train(plan, data, every=5)
    reports = [(each.loss, each.accuracy) for each in expected]
    captures = capture_by_recomputing(monkeypatch)
    for source in (data, mapped(data, tmp_path)):
        run = train(plan, source, every=5)
        assert [(each.loss, each.accuracy) for each in run] == reports
        assert same(expected.model.state_dict(), run.model.state_dict())
    assert [each.iteration for each in captures] == [WARM_UP, 6, 9] * 2


def test_an_optimiser_made_capturable_counts_on_the_device_and_steps_as_before():
    """On the meta device, which stands in for a GPU: where the counts come to lie."""
    run = train(recipe(optimiser="rmsprop"), images())
    finished(run)
    optimiser = run._step.optimiser
    cuda_graph_step.make_capturable(optimiser, torch.device("meta"))
    assert all(group["capturable"] for group in optimiser.param_groups)
    assert {kept["step"].device.type for kept in optimiser.state.values()} == {"meta"}


@gpu
@pytest.mark.parametrize("optimiser", ["adam", "amsgrad", "sgd", "adamax", "adadelta", "rmsprop"])
@pytest.mark.parametrize("network", [{}, DROPPING])
def test_a_captured_graph_trains_as_separate_kernels_do(optimiser, network):
    """Oracle: the same run without a graph."""
    plan = recipe(optimiser=optimiser, iterations=30, drops=(15,), flips=True, crop=1, weight_decay=1e-4, **network)
    runs = [train(plan, images(), device="cuda", tuning=Tuning(cuda_graph=graph)) for graph in (True, False)]
    first, second = map(finished, runs)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_as_the_cpu_does_and_its_run_goes_on(precision):
    """Oracle: the CPU, to the precision of the run; the state of one is taken up by the other."""
    plan = recipe(optimiser="sgd", lr=0.01, iterations=12, flips=True, precision=precision)
    run = train(plan, images(), device="cuda", every=6)
    next(run)
    other = train(plan, images(), every=6, state=run.state())
    rounding = 1e-3 if precision == "fp32" else 3e-2
    torch.testing.assert_close(
        {name: value.cpu() for name, value in finished(run).items()}, finished(other), rtol=rounding, atol=rounding
    )


@gpu
def test_gpu_settings_last_as_long_as_the_context():
    before = torch.backends.cuda.matmul.fp32_precision
    for tf32, expected in ((True, "tf32"), (False, "ieee")):
        with gpu_settings(Tuning(tf32=tf32), CUDA):
            assert torch.backends.cuda.matmul.fp32_precision == expected
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_memory_that_is_too_small_is_one_line():
    with pytest.raises(SlimnetError, match=r"the memory of cuda is too small .* smaller batch size") as caught:
        with_gpu_settings(torch.OutOfMemoryError("Tried to allocate 2 GiB\nof which"))
    assert "\n" not in str(caught.value)


def with_gpu_settings(error: Exception) -> None:
    with gpu_settings(Tuning(), CUDA):
        raise error


def test_a_compiler_that_fails_is_one_line():
    """Anything else that goes wrong keeps its own name."""

    class InductorError(Exception):
        __module__ = "torch._inductor.exc"

    with pytest.raises(UsageError, match=r"torch\.compile cannot compile this network here: InductorError: no g"):
        failing(InductorError("no g++\nin sight"), compiled=True)
    with pytest.raises(InductorError):
        failing(InductorError("no g++"), compiled=False)
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError(), compiled=True)


def failing(error: Exception, *, compiled: bool) -> None:
    with compiler_errors_reported(Tuning(compiled=compiled)):
        raise error


def test_the_compiled_network_is_the_one_that_is_called(monkeypatch):
    """A stand-in for torch.compile: the run calls what it returns, and the model itself stays as it was."""
    calls = []

    def compile(forward):
        return lambda batch: calls.append(len(batch)) or forward(batch)

    monkeypatch.setattr(torch, "compile", compile)
    plan = recipe()
    run = train(plan, images(), tuning=Tuning(compiled=True))
    assert same(finished(train(plan, images())), finished(run))
    assert calls == [5] * 7


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_a_compiled_run_trains_as_a_plain_one():
    plan = recipe(lr=1e-3, optimiser="sgd")
    run = train(plan, images(), tuning=Tuning(compiled=True))
    torch.testing.assert_close(finished(train(plan, images())), finished(run), rtol=1e-3, atol=1e-5)


def test_threads_are_the_runs_own():
    assert train(recipe(), images(), threads=2).tuning == Tuning(threads=2)
    assert train(recipe(), images(), threads=2, tuning=Tuning(tf32=True)).tuning == Tuning(threads=2, tf32=True)
    for threads in (0, -1):
        with pytest.raises(UsageError, match=f"{threads} threads cannot train"):
            train(recipe(), images(), threads=threads)
