#!/bin/sh
# From nothing to a slim network and its ONNX file: train until filters die, slim the run, check, export.
#
#   sh examples/journeys/from_nothing.sh OUT [ITERATIONS]
#
# Some filters must die, which takes about 2,500 iterations on the digits, a minute on one core.
set -eu
out=$1
iterations=${2:-2500}

slimnet train digits --iterations "$iterations" --validate 0.1 -o "$out/run"
slimnet slim "$out/run" -o "$out/slim"
slimnet verify "$out/slim"
slimnet export "$out/slim" -o "$out/net.onnx"
