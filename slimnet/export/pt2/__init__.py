"""The exported program, model.pt2: read as data and run step by step, without making code of it."""
