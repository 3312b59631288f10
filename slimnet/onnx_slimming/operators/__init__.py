"""What ONNX's operators compute, in ops of torch that the trace knows; one function each."""
