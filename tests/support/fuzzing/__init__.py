"""The fuzzer: files of every kind that slimnet reads, spoilt at random as a stranger might, and read in every way.

`python -m fuzzing --count 10000 --seed 0` (with tests/ on PYTHONPATH) is what `make fuzz` runs.
"""
