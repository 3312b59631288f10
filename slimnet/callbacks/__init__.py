"""Callbacks for the trainers of others; each module imports its own, which is no requirement of slimnet."""
