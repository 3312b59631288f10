"""Everything that determines a training run: the recipe, its optimiser and its regularisers."""
