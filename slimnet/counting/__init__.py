"""Multiply-accumulates, activations and parameters of a network, counted by fvcore."""

from slimnet.counting.network_counts import NetworkCounts, count_network, count_or_take, count_parameters

__all__ = ["NetworkCounts", "count_network", "count_or_take", "count_parameters"]
