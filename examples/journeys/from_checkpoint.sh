#!/bin/sh
# From a trained checkpoint to a network of half the MACs: inspect, slim exactly, slim the bundle to a budget, fine-tune,
# compare.
#
#   sh examples/journeys/from_checkpoint.sh CKPT ARCH ARCH_ARGS DATA OUT [ITERATIONS]
#   sh examples/journeys/from_checkpoint.sh resnet56.th resnet56 '{}' cifar10 runs/resnet56
#
# The output of each command is the input of the next one: a bundle stores its architecture and its normalisation.
set -eu
checkpoint=$1
arch=$2
arguments=$3
data=$4
out=$5
iterations=${6:-10000}

mkdir -p "$out"
slimnet inspect "$checkpoint" --arch "$arch" --arch-args "$arguments" --data "$data"
slimnet slim "$checkpoint" --arch "$arch" --arch-args "$arguments" --data "$data" -o "$out/exact"
slimnet slim "$out/exact" --data "$data" --target-macs 0.5 -o "$out/half"
slimnet finetune "$out/half" --data "$data" --validate 0.1 --iterations "$iterations" -o "$out/tuned"
slimnet benchmark "$out/exact" "$out/tuned" --data "$data" --batch 1 --runtime onnxruntime --seconds 2
