"""benchmarks/README.md and benchmarks/tables, made from the results: every table with what it was measured on.

Numbers that the README and docs/ quote from them are renewed as well (quoted_numbers.py).

python benchmarks/tables.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import census
import claims
import cost_aware
import counting
import decoding
import gpu
import int8
import l2_schedule
import latency
import learning_curves
import never_slower
import paper
import phenomenon
import quoted_numbers
import recipe_variants
import resnet56_curves
import scalars
import shrinking
import small_scale
import surgery_speed
import train_throughput
import unfinished
import zoos

FOLDER = Path(__file__).parent
MADE = "<!-- Made by tables.py from results; do not edit. -->"

SECTIONS = (
    (
        "The surgery on the torchvision zoo",
        "surgery_speed",
        "Forty per cent of the channels dead, seed 0, 64×64 images, one thread. *Error* is the largest relative "
        "difference between the slim network and the masked one in double precision, for β zero, negative and random "
        "on dead channels. *Removed* counts convolution channels. *Ratio* is slimnet's time over torch-pruning's "
        "(trace, plan and apply against graph, groups and pruning). *Memory* is the peak of `slim` with its "
        "certificate, over the network's size: of all resident memory, and of its *own*, without the pages of library "
        "files it is the first to read. maxvit_t takes images of 224×224 only, of which its forward alone needs 0.7 "
        "times its size; torch-pruning asks for more than 24 GB on it, so that it was not raced, and nor was "
        "regnet_y_128gf.",
        lambda results: f"```\n{surgery_speed.table(results)}\n```",
    ),
    (
        "Networks of other packages",
        "zoos",
        "Networks of ten packages, one of each source file that defines any, in an order drawn by seed 0, the "
        "packages in turns; files that are not counted here were not reached. 40 % of each BatchNorm's channels are "
        "dead, with negative β; weights are random; images have 64×64 pixels or the network's own size; each "
        "network has a process of its own. *Exact* compares the slim network with the masked one in double "
        "precision on another image. *Of what could be at most* divides what is removed by the sum of that and what "
        "is kept only because the code is not followed (a width in it, an op that is not known); channels that vary "
        "where they are read, carry constants or are normalised over channels are not in it. CPU seconds are those "
        "of `slim` in double precision, with its certificate.",
        zoos.table,
    ),
    (
        "Multiply-accumulates by four counters",
        "counting",
        "MACs of convolutions and linear layers for one image: by fvcore as it is installed, by fvcore with the "
        "operators that slimnet adds (what slimnet prints), by the planner on meta tensors, and by torch's counter of "
        "operations, which does not look into torch's fused attention.",
        counting.table,
    ),
    (
        "A number under low gradients",
        "scalars",
        "The paper's figure 4 and supplementary figure 3, in full: a number begins at 1, the gradient of its loss is "
        "noise (standard deviation 1e-5, and 1e-3 in the first 100 steps), and the trainer's own optimisers and "
        "regularisers update it 10,000 times at the paper's settings. Lines are medians of 16 seeds, bands go from "
        "the 10th to the 90th percentile. The paper prints these figures as images, so the noise, the number of "
        "iterations, λ and which optimisers the second one shows are our reconstruction. *Left* is the median after "
        "the last iteration.",
        scalars.table,
    ),
    (
        "L2 by cost",
        "cost_aware",
        "MACs removed against error, with L2 on each γ scaled by what its channel costs and without, at equal λ and "
        "iterations, on scikit-learn's digits (a small task: 359 test images).",
        cost_aware.table,
    ),
    (
        "Latency",
        "latency",
        "Six networks on 224×224 images, with so many % of the BatchNorm channels dead, in the layer profile of the "
        "paper's table 2 (seed 0). In brackets the 95 % interval of the ratio of medians. *Auto* is what "
        "`round_to='auto'` chooses in that configuration, by its own measurement: a multiple, none (no rounding) or "
        "dense. *Efficiency* is its speed-up over its MACs reduction. Errors are the largest difference to the masked "
        "network, over the largest output. With one thread the second core was busy with other work, with two nothing "
        "else ran.\n\n"
        "Without rounding, layers lose onnxruntime's blocked layout of channels. It needs widths that are multiples "
        "of 4, and pads them to 16; other widths run in slower kernels, with channels reordered before and after. So "
        "MobileNetV2 with 3.1 times fewer MACs is hardly faster until widths are rounded; most of that is in the "
        "convolutions themselves, not in the reordering. What is left after rounding: MobileNetV2's last layers, on "
        "7×7 pixels, half as efficient; DenseNet-121's concatenations and BatchNorms, as many as before; SiLU (a "
        "fifth of the time) and squeeze-and-excite in EfficientNet-B0, which leave the blocked layout in the dense "
        "network too. A separate multiple for each layer would save little time, so `auto` chooses one for all "
        "layers.",
        latency.table,
    ),
    (
        "Never slower, by default",
        "never_slower",
        "The networks of the table of latency on five runtimes: dense, with all removable channels removed (*none*: "
        "no rounding), and with `slimnet slim --round fast:RUNTIME` (*fast*; with onnxruntime that is the default), "
        "which keeps removable channels whose removal saves no time in the runtime's kernels. Each configuration is "
        "measured twice. *Slower* counts the cells whose 95 % interval is below 1 both times; an interval *holds* if "
        "it overlaps that of the second measurement. *Efficiency* is the mean speed-up of both measurements, over the "
        "MACs reduction. The machine was busy, so CPU time is compared where other programs used some of the wall "
        "time.",
        never_slower.table,
    ),
    (
        "Slim and int8",
        "int8",
        "What `slimnet export --int8` writes: static, QDQ, weights in int8 of 7 bits with a scale for each output "
        "channel, activations in uint8, calibrated on 128 training images. *Dead channels* is exact slimming of a "
        "published ResNet-56, *half of the MACs* removes live channels too and fits the rest on 256 training images "
        "without labels, with widths that are multiples of 4; accuracies are those of the files on all 10,000 test "
        "images of CIFAR-10. NNCF's files (`-o F.xml`) have the same images, bits and ranges; their biases are "
        "corrected, and they were not timed here. VGG-16 and ResNet-50 are those of the page on latency (random "
        "weights, half of the BatchNorm channels dead, 224×224 images), with widths that are multiples of 16. "
        "Speed-ups are over dense in float32, in brackets the 95 % interval of the ratio of medians. This processor "
        "has VNNI. The goal was 6 times faster for both large networks, which ResNet-50 misses: of its MACs fewer go. "
        "On one with AVX2 alone, where a product of 8-bit numbers takes more than one instruction, the same were 4.2 "
        "(VGG-16) and 3.3 times faster (onnxruntime, 2026-11-30, other programs on both cores).",
        int8.table,
    ),
    (
        "Dead weight in published checkpoints",
        "census",
        "The checkpoints of two CIFAR-10 ResNets, and the small ones with BatchNorm that packages carry, as "
        "`slimnet census` counts them. *Dead* counts scales γ of BatchNorms with |γ| below a threshold; what is "
        "removed is what exact slimming removes at 1e-3. In Crepe, BatchNorm follows the ReLU, and the "
        "next convolution pads with zeros: the four dead channels stay, since their constants differ at the border.",
        census.table,
    ),
    (
        "Methods on a published ResNet-56",
        "resnet56_curves",
        "Error in per cent on all 10,000 test images of CIFAR-10 against MACs left, right after the removal and, "
        "where an arrow follows, after a short fine-tuning, the same for all: 100 iterations of 64 images, SGD at "
        "1e-3; behind a double arrow after 500, from 1e-2 along a cosine. `implicit` ranks by the importance of a "
        "channel for its readers, divided by its cost; `liu2017` by |γ|, and `li2017` by Li et al.'s |F| on the "
        "channels between the two convolutions of a block. After the removal every BatchNorm gets the mean and "
        "variance of the remaining channels, estimated from the other BatchNorms without data. In the rows called "
        "measured they are measured on 256 training images without labels, and the rows called plain leave them "
        "alone, as the papers do. In the rows called fitted the remaining weights are fitted to the dense network's "
        "activations by least squares, on the same images or, without data, on 128 images that are synthesised from "
        "the BatchNorm statistics. The correction matters more than the method: at half of the MACs every plain "
        "network has at least twice the error of the corrected one, or is near chance level; fine-tuning re-estimates "
        "the statistics and makes up for it. Compared with `li2017` under the same correction, `implicit` has "
        "about the same error at 90 % of the MACs, and a lower one below; fine-tuning makes the "
        "difference smaller. The ranking was chosen among several on training images, with a ResNet-20 and another "
        "small network; only the chosen one was evaluated on these test images. "
        "torch-pruning's pruners choose and cut by themselves, with their own settings, on the same function.\n\n"
        "![Error against MACs](../../docs/resnet56-curves.svg)",
        resnet56_curves.table,
    ),
    (
        "How networks of the paper's full length learn",
        "learning_curves",
        "What a training run logged: filters dead by γ, and the MACs left, at the end of each stretch of iterations; "
        "training loss and accuracy as means over it, in training mode, with flips. Their results are in "
        "[the paper's tables](paper.md). The paper prints a training loss at the end of 0.29 for the network with L2 "
        "1e-3 and 0.22 for 32-0.25x; here it falls far below that once the learning rate does. These networks pool "
        "behind the first, third and fifth convolution, and images are flipped, but not shifted. The paper does not "
        "print where it pools, and mentions flips only; [its recipe](recipe_variants.md) shows what comes nearer to "
        "its numbers.",
        learning_curves.table,
    ),
    (
        "What the paper does not print about its recipe",
        "recipe_variants",
        "32-0.25x on CIFAR-10 with L2 1e-4, a quarter as long as in the paper: 100,000 iterations, the learning rate "
        "falling after 80,000; bfloat16, dead channels removed as they die, seed 0. Every run flips images and pools "
        "behind C1, C3 and C5 unless its name says otherwise. *Flips and crops* shifts each image by up to 4 pixels as "
        "well. Losses are those of training, with the images that it sees, in training mode. The paper's own numbers "
        "are those of its full length. *BatchNorm over parts* takes its statistics over 10 images at a time, as four "
        "processes do that share a batch (`torchrun`); here one process computed the parts in turn. Only with shifted "
        "images does the training loss stay near the paper's once the learning rate falls. Each change but that of "
        "BatchNorm makes more filters die (with flips alone 12 % are dead after 80,000 iterations of the full length), "
        "earlier pooling and shifts together most. With these two all numbers are "
        "near the paper's. That does not prove that it did the same, and the layers contradict it: in which of them "
        "filters are dead depends on where the network pools, hardly on shifts. Only with pooling behind C1, C3 and C5 "
        "do C4 and C5 lose nearly equal shares, as in the paper. It mentions flips only. What keeps its training loss "
        "up is not known.",
        recipe_variants.table,
    ),
    (
        "L2 on γ that rises and falls",
        "l2_schedule",
        "BasicNet 32-0.25x on CIFAR-10, 10,000 iterations (a fortieth of the paper's length), bfloat16, dead channels "
        "removed as they die. *Constant* is the paper's L2. *Cycle* multiplies the λ of every γ by 2 sin²(πt), "
        "t from 0 to 1 over the run, so that its mean is the same. The others keep their λ. Errors are those of the "
        "slim networks on the 10,000 test images. At equal MACs neither has the lower error throughout, so slimnet "
        "has no option for it. An earlier version of this table had the cycle ahead: its networks were by mistake "
        "trained with BatchNorm in evaluation mode.",
        l2_schedule.table,
    ),
    (
        "Training throughput",
        "train_throughput",
        "Images trained a second, beside the loop of the tutorials (DataLoader with workers, PIL, torchvision's "
        "transforms, eager float32), in turns on the same threads. *Matmul rate* is the share of what a large matrix "
        "product reaches in the same run. *Dead* filters have γ and β among the denormal numbers, where Adam and L2 "
        "leave them after long training, and so make denormal activations: the worst case for a loop that computes "
        "with these, as the plain one does.",
        train_throughput.table,
    ),
    (
        "Training that removes dead filters",
        "shrinking",
        "Whole runs, dense and shrinking, in turns on the same threads. *Slowest turns* is the 95th percentile of how "
        "much longer a hundred iterations took in the shrinking run; another training ran on the other core beside "
        "all but the demo. Where few filters die, and late, little is saved. Steps are those of the paper's BasicNet, "
        "and of ones whose layers have a share of its filters, on 32×32 images in batches of 40; *efficiency* is how "
        "many times a step is shorter over how many times the MACs are fewer. A run *by the time of its steps* was "
        "trained beside other programs: steps with the widths that it had are timed in turns with dense ones, as CPU "
        "time on one thread, and its iterations are given these times; *at full length* assumes that the last widths "
        "stay. At its last widths, in bfloat16, convolutions run at the rate of a large matrix product (200 GFLOP/s "
        "on one core of this processor), and take 60 % of a step. The rest, mostly BatchNorm, ReLU and pooling of the "
        "first layers, shrinks with the number of filters, not with its square: that bounds the efficiency. "
        "torch.compile makes these steps slower here (37 ms for 33).",
        shrinking.table,
    ),
    (
        "Reading a folder of images",
        "decoding",
        "Made-up JPEGs of 375×500 pixels brought to 64×64, images a second (median and range), in turns. slimnet "
        "decodes once into an array, which a set below a gigabyte is read from as a whole and a larger one is mapped "
        "from; the files lie in the system's cache for both. slimnet has a JPEG decoded at a half to an eighth of "
        "its size where that leaves enough pixels.",
        decoding.table,
    ),
    (
        "On a GPU",
        "gpu",
        "`python benchmarks/gpu.py --budget 9m --out gpu`, whose `gpu/gpu.json` is kept here: the slim network against "
        "the masked one in every precision, layout and runtime, with 40 % of the channels dead; images trained a "
        "second; and the latency of dense and slim networks. The plain loop rounds as slimnet's does. An error is "
        "allowed what a certificate allows, or twice what rounding alone does to that network, if that is more. Where "
        "there is no GPU, `tests/torch_state/test_elsewhere.py` shows on a device made of the CPU that tensors are "
        "where they have to be and results the CPU's; rounding to TF32, streams, CUDA graphs and a GPU's memory are "
        "for this program.",
        gpu.table,
    ),
    (
        "Task difficulty at other small scales",
        "small_scale",
        "In the paper CIFAR-10 leaves more filters unused than CIFAR-100. At the small scale that is so with L2 1e-4, "
        "and with 1e-3 it is the other way round (first two rows). After that was seen these settings were tried, on "
        "table 1's cells with Adam: what the paper's λ and learning rate are multiplied by, iterations and batch size. "
        "Filters dead by γ, with half the range of the seeds, and in brackets the training loss (chance is 2.3 and "
        "4.6).\n\n"
        "With ten times the λ the network learns little of CIFAR-100 and keeps fewer filters there, also when it is "
        "trained longer or on larger batches. With three times the λ and four times the batch the order is the paper's "
        "at either λ, beyond the spread of the seeds; that takes up to four times as long, and the small scale was "
        "left as it is. With three times the λ and the learning rate it is the paper's at 1e-3, but at 1e-4, which "
        "most other trends are read off, nothing dies.",
        small_scale.table,
    ),
)
"""Heading, script and result file, what the table shows, and what draws it."""


PAPER = (
    (
        "The phenomenon on CIFAR-10 and CIFAR-100",
        "phenomenon",
        "The most telling cells of the paper's tables 1 and 3: sparsity by γ, sparsity by activation and test error "
        "in per cent; *MACs left* are those of the slim network. Only the full scale trains as long as the paper. At "
        "the middle scale networks are a quarter as wide; the small one is a quick check, with narrower networks yet, "
        "smaller images and ten times the λ.",
        phenomenon.page,
    ),
    (
        "The paper's tables",
        "paper",
        "Every row of every table of the paper is a cell of `slimnet reproduce`: which were run in full, which at a "
        "shorter scale and which not at all, how long a cell takes, which of the paper's trends hold, and the tables.",
        paper.page,
    ),
)
"""The same, of tables that are made from a folder of results, results/paper."""


PLOTS = (
    (
        "Dead filters and MACs over the iterations of a network of the paper's full length",
        "results/learning-curves.svg",
        "learning_curves",
    ),
    ("Error against MACs of a published ResNet-56", "../docs/resnet56-curves.svg", "resnet56_curves"),
    ("A number under low gradients, the paper's figure 4", "results/figure-4.svg", "scalars"),
)
"""The pictures of the first page: what they show, where they are, and the page with their numbers."""


def section(heading: str, name: str, words: str, table: Any) -> str:
    """One table with the command that makes it and the machine that it was measured on."""
    path = FOLDER / "results" / f"{name}.json"
    lines = [f"# {heading}", "", MADE, "", words, ""]
    if not path.exists():
        return "\n".join([*lines, f"Not run yet: `python benchmarks/{name}.py`.", ""])
    results = json.loads(path.read_text())
    lines += [
        table(results),
        "",
        f"`python benchmarks/{name}.py`, raw in `../results/{name}.json`. {machine(results)}",
        "",
    ]
    return "\n".join(lines)


def paper_section(heading: str, name: str, words: str, table: Callable[[], str]) -> str:
    """A table from the paper's results, in which every row says what it was measured on."""
    return "\n".join([f"# {heading}", "", MADE, "", words, "", table(), "", f"`python benchmarks/{name}.py`.", ""])


def machine(results: dict[str, Any]) -> str:
    """What a table was measured on."""
    known = results.get("environment") or next(iter(results["configurations"].values()))["environment"]
    names = ("GPU", "Processor", "Vector instructions", "Cores", "torch", "Python", "Measured")
    return "; ".join(f"{name} {known[name]}" for name in names if name in known) + "."


def front_page() -> str:
    """What was shown, a line each, the plots, and the way to every table."""
    lines = [
        "# Benchmarks",
        "",
        MADE,
        "",
        "What was shown, with its provenance. Every table behind it is made by a program here and can be made again.",
        "",
        claims.table(),
        "",
        claims.lengths(),
        "",
        *unfinished.lines(),
    ]
    for words, place, name in PLOTS:
        lines += [f"[![{words}]({place})](tables/{name}.md)", "", f"*{words}.*", ""]
    lines += ["## Tables", ""]
    lines += [f"- [{heading}](tables/{name}.md)" for heading, name, *_ in (*SECTIONS, *PAPER)]
    return "\n".join(lines)


def main() -> None:
    """Write the pages."""
    pages = {FOLDER / "README.md": front_page()}
    pages |= {FOLDER / "tables" / f"{each[1]}.md": section(*each) for each in SECTIONS}
    pages |= {FOLDER / "tables" / f"{each[1]}.md": paper_section(*each) for each in PAPER}
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.rstrip() + "\n", encoding="utf-8")
    quoted_numbers.main()


if __name__ == "__main__":
    main()
