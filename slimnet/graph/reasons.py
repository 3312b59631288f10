"""Why dead channels are kept, as data: kinds of reasons, each with a sentence and a remedy, and places."""

from enum import Enum
from typing import NamedTuple


class Place(NamedTuple):
    """A place in a network: an op, the path of the module that called it, and the source line; each may be empty."""

    op: str = ""
    module: str = ""
    line: str = ""

    def __str__(self) -> str:
        if not self.op:
            return self.module or "the network itself"
        within = f"{self.op} in {self.module or 'the network itself'}"
        return f"{within} ({self.line})" if self.line else within


NOTHING = ""
WRITE_SIZES = "write x.shape[1] or -1 where a size is meant, and chunk for halves"
NONPOSITIVE_SHIFT = "β ≤ 0 in front of a ReLU"
OWN_WEIGHT = "a module of torch with a weight of its own"


class Kind(Enum):
    """A kind of reason: its sentence, with `{place}` or `{detail}`, and a remedy, empty if there is none."""

    ASKED = "kept as requested", "another keep="
    UNCUT = "nothing that holds it can be cut", NOTHING
    VARIES = "varies where {place} reads it", "fewer shortcuts: all that write a channel must be dead"
    CARRIER = "carrier of constants for {place}", NONPOSITIVE_SHIFT
    LAST = "last channel of {place}", NOTHING
    SECOND = "second channel of {place}", NOTHING
    EQUAL_PARTS = "equal parts at {place}", NOTHING
    EQUAL_GROUPS = "equal parts at the groups of {place}", NOTHING
    FILLS_GROUP = "fills up a group of {place}", NOTHING
    ROUNDED = "rounded up to a multiple of {detail}", "another round_to="
    NO_FASTER = "removal brings no time under {detail}", "another round_to="
    WHOLE = "the whole width is kept", "another round_to="
    OUTPUT = "output of the network", NOTHING
    CALLS_DIFFER = "constant differs between the calls of {place}", NOTHING
    REDUCED = "reduced over its channels at {place}", NONPOSITIVE_SHIFT
    LARGEST = "kept as the maximum constant, reduced over its channels at {place}", NOTHING
    NORMALISED = "normalised over its channels at {place}", "BatchNorm"
    NEIGHBOURS = "mixed with its neighbours at {place}", NOTHING
    POSITIONS = "used as coordinates at {place}", NOTHING
    NUMBERS = "indexed by a list at {place}", "x.flip(1), chunk and the like work with any width"
    MULTIPLIED = "multiplied as a matrix at {place}", "scales that are numbers, not computed from the width"
    FIXED_SIZE = "combined with a tensor of fixed size at {place}", NOTHING
    NO_CHANNELS = "combined with a tensor without channels at {place}", NOTHING
    JOINED = "joined with a tensor of fixed size at {place}", NOTHING
    OTHER_POSITIONS = "combined with other positions at {place}", NOTHING
    ONE_FOR_MANY = "one channel scales many in {place}", NOTHING
    TAKEN = "taken by position at {place}", "chunk or x.shape[1] // 2 for halves; x[:, ::2] works with any width"
    SLICED = "sliced by position at {place}", WRITE_SIZES
    SELECTED = "selected by position at {place}", WRITE_SIZES
    SPLIT = "split into parts of fixed sizes at {place}", "chunk, or sizes computed from x.shape[1]"
    PADDED_CHANNELS = "padded by a fixed number of channels at {place}", WRITE_SIZES
    PADDED = "padded at {place}", NOTHING
    OVERWRITTEN = "overwritten by position at {place}", WRITE_SIZES
    OVERWRITTEN_WITH = "overwritten with a tensor of fixed size at {place}", WRITE_SIZES
    OVERWRITTEN_IN_PART = "overwritten in part at {place}", NOTHING
    CODE = "the code at {place} hard-codes a width", WRITE_SIZES
    CODE_AROUND = "the code around {place} hard-codes a width", WRITE_SIZES
    WEIGHT_NORM = "normalised with its filter at {place}", "remove_parametrizations first"
    FOREIGN_WEIGHT = "combined with a weight that belongs to no layer in {place}", OWN_WEIGHT
    COMPUTED_WEIGHT = "weight computed at {place}", OWN_WEIGHT
    DATA_WEIGHT = "convolved with a weight computed from data at {place}", OWN_WEIGHT
    GROUPED_WEIGHT = "grouped weight of an unsupported kind at {place}", OWN_WEIGHT
    JOINED_WEIGHTS = "weights are concatenated at {place}", OWN_WEIGHT
    GATED_WEIGHT = "a weight is gated at {place}", OWN_WEIGHT
    CONVOLVED = "read by a convolution at {place}", NOTHING
    LINEAR = "read by a linear layer at {place}", NOTHING
    POOLED = "pooled at {place}", NOTHING
    EMPTY = "empty tensor at {place}", NOTHING
    NO_BIAS = "{place} has no bias to fold it into", OWN_WEIGHT
    NO_CARRIER = "the padded weight of {place} is computed, or shared with a layer of another kind", OWN_WEIGHT
    NOT_FOLLOWED = "not traced through {place}", NOTHING
    UNKNOWN_OP = "used by unknown op {place}", NOTHING

    @property
    def sentence(self) -> str:
        """The reason in words, with `{place}` or `{detail}` as placeholders."""
        return self.value[0]

    @property
    def help(self) -> str:
        """The remedy in a few words; empty if there is none."""
        return self.value[1]


class Reason(NamedTuple):
    """Why a channel is kept: the kind of reason, the place, and a detail such as a multiple."""

    kind: Kind
    place: Place = Place()
    detail: str = ""

    def __str__(self) -> str:
        return self.kind.sentence.format(place=self.place, detail=self.detail)
