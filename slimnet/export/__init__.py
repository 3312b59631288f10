"""Exported forms of a network: captured by torch.export, written as ONNX and as .pt2, and read back."""
