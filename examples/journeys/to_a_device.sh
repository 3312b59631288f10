#!/bin/sh
# From a trained network, a run or a bundle, to a file for a device: slimmed to a latency, fine-tuned, and with images as
# bytes as its input, so that no code on the device has to normalise them.
#
#   sh examples/journeys/to_a_device.sh SOURCE DATA OUT [ITERATIONS]
#
# Run it on the device, or on a machine like it: the latency is measured where it runs.
set -eu
source=$1
data=$2
out=$3
iterations=${4:-10000}

mkdir -p "$out"
slimnet slim "$source" --data "$data" --target-latency 0.7 -o "$out/fast"
slimnet finetune "$out/fast" --data "$data" --iterations "$iterations" -o "$out/tuned"
slimnet export "$out/tuned" --with-preprocessing --layout nhwc -o "$out/net.onnx"
