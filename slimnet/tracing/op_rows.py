"""Tables of ops: rows by the op's name, merged so that no op has two rows."""

from collections.abc import Mapping

from slimnet.tracing.op_call import OpSpec

Rows = dict[str, OpSpec]


def same_row(spec: OpSpec, *names: str) -> Rows:
    """The same row for several ops.

    Raises:
        ValueError: an op is named twice.
    """
    rows = dict.fromkeys(names, spec)
    if len(rows) < len(names):
        raise ValueError(f"an op is named twice among {', '.join(names)}")
    return rows


def merge_rows(*tables: Mapping[str, OpSpec]) -> Rows:
    """Several tables as one.

    Raises:
        ValueError: an op has a row in two of them.
    """
    merged: Rows = {}
    for table in tables:
        twice = merged.keys() & table.keys()
        if twice:
            raise ValueError(f"these ops have two rows: {', '.join(sorted(twice))}")
        merged.update(table)
    return merged
