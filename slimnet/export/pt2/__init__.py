"""The exported program, model.pt2: read as data and interpreted step by step, without generating code from it."""
