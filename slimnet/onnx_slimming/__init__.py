"""ONNX files slimmed: the graph as a module, planned and cut like any network, and its tensors put back into the file.

`slim_onnx` is the whole way; the other modules are its parts.
"""
