"""The pages about methods of choosing channels."""
