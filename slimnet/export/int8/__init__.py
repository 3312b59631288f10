"""Networks in int8: quantised by onnxruntime, and measured next to the networks that they were made from."""
