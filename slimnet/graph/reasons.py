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


class Cause(Enum):
    """What several kinds of reasons have in common, in words that follow "kept since"."""

    WIDTH = "a width is a number in the code"
    FIXED_TENSOR = "a tensor of fixed size is as wide"
    VARYING = "they vary where they are read"
    CONSTANTS = "they carry constants"
    NO_BIAS = "no bias or weight can store their constants"
    OVER_CHANNELS = "an op computes over the channels"
    SPREAD = "an op treats their axis as another one"
    SCALES = "one channel scales many"
    PARTS = "parts and groups stay equal"
    LAST = "they are the last of their axis"
    OUTPUT = "they are outputs of the network"
    WEIGHT = "a weight is computed or shared"
    UNKNOWN = "an op is unknown"
    DATA = "what follows depends on data"
    NO_AXIS = "nothing that holds them can be cut"
    REQUEST = "that was requested"
    ROUNDING = "widths are rounded up"
    TIME = "their removal saves no time"
    OTHER = "the plan gives another reason"

    def of(self, channels: int) -> str:
        """The words for so many channels: those for one are not those for several."""
        return _OF_ONE.get(self, self.value) if channels == 1 else self.value


_OF_ONE = {
    Cause.VARYING: "it varies where it is read",
    Cause.CONSTANTS: "it carries constants",
    Cause.NO_BIAS: "no bias or weight can store its constant",
    Cause.SPREAD: "an op treats its axis as another one",
    Cause.LAST: "it is the last of its axis",
    Cause.OUTPUT: "it is an output of the network",
    Cause.NO_AXIS: "nothing that holds it can be cut",
    Cause.TIME: "its removal saves no time",
}
"""The words of a cause for a single channel, where they differ."""


class Kind(Enum):
    """A kind of reason: its sentence, with `{place}` or `{detail}`, a remedy, empty if there is none, and its cause."""

    ASKED = "kept as requested", "another keep=", Cause.REQUEST
    UNCUT = "nothing that holds it can be cut", NOTHING, Cause.NO_AXIS
    VARIES = "varies where {place} reads it", "fewer shortcuts: all that write a channel must be dead", Cause.VARYING
    CARRIER = "carrier of constants for {place}", NONPOSITIVE_SHIFT, Cause.CONSTANTS
    LAST = "last channel of {place}", NOTHING, Cause.LAST
    SECOND = "second channel of {place}", NOTHING, Cause.LAST
    EQUAL_PARTS = "equal parts at {place}", NOTHING, Cause.PARTS
    EQUAL_GROUPS = "equal parts at the groups of {place}", NOTHING, Cause.PARTS
    FILLS_GROUP = "fills up a group of {place}", NOTHING, Cause.PARTS
    ROUNDED = "rounded up to a multiple of {detail}", "another round_to=", Cause.ROUNDING
    NO_FASTER = "removal saves no time under {detail}", "another round_to=", Cause.TIME
    WHOLE = "the whole width is kept", "another round_to=", Cause.ROUNDING
    OUTPUT = "output of the network", NOTHING, Cause.OUTPUT
    CALLS_DIFFER = "constant differs between the calls of {place}", NOTHING, Cause.VARYING
    REDUCED = "reduced over its channels at {place}", NONPOSITIVE_SHIFT, Cause.OVER_CHANNELS
    LARGEST = "kept as the maximum constant, reduced over its channels at {place}", NOTHING, Cause.CONSTANTS
    NORMALISED = "normalised over its channels at {place}", "BatchNorm", Cause.OVER_CHANNELS
    NEIGHBOURS = "mixed with its neighbours at {place}", NOTHING, Cause.OVER_CHANNELS
    POSITIONS = "used as coordinates at {place}", NOTHING, Cause.OVER_CHANNELS
    NUMBERS = "indexed by a list at {place}", "x.flip(1), chunk and the like work with any width", Cause.WIDTH
    MULTIPLIED = (
        "multiplied as a matrix at {place}",
        "scales that are numbers, not computed from the width",
        Cause.OVER_CHANNELS,
    )
    FIXED_SIZE = "combined with a tensor of fixed size at {place}", NOTHING, Cause.FIXED_TENSOR
    NO_CHANNELS = "combined with a tensor without channels at {place}", NOTHING, Cause.FIXED_TENSOR
    JOINED = "joined with a tensor of fixed size at {place}", NOTHING, Cause.FIXED_TENSOR
    OTHER_POSITIONS = "combined with other positions at {place}", NOTHING, Cause.SPREAD
    ONE_FOR_MANY = "one channel scales many in {place}", NOTHING, Cause.SCALES
    TAKEN = (
        "taken by position at {place}",
        "chunk or x.shape[1] // 2 for halves; x[:, ::2] works with any width",
        Cause.WIDTH,
    )
    SLICED = "sliced by position at {place}", WRITE_SIZES, Cause.WIDTH
    SELECTED = "selected by position at {place}", WRITE_SIZES, Cause.WIDTH
    SPLIT = "split into parts of fixed sizes at {place}", "chunk, or sizes computed from x.shape[1]", Cause.WIDTH
    PADDED_CHANNELS = "padded by a fixed number of channels at {place}", WRITE_SIZES, Cause.WIDTH
    PADDED = "padded at {place}", NOTHING, Cause.SPREAD
    OVERWRITTEN = "overwritten by position at {place}", WRITE_SIZES, Cause.WIDTH
    OVERWRITTEN_WITH = "overwritten with a tensor of fixed size at {place}", WRITE_SIZES, Cause.FIXED_TENSOR
    OVERWRITTEN_IN_PART = "overwritten in part at {place}", NOTHING, Cause.SPREAD
    CODE = "the code at {place} hard-codes a width", WRITE_SIZES, Cause.WIDTH
    CODE_AROUND = "the code around {place} hard-codes a width", WRITE_SIZES, Cause.WIDTH
    ATTRIBUTE = (
        "the code at {place} takes a width from {detail} that cannot change with it",
        "an attribute of its own for every width",
        Cause.WIDTH,
    )
    UNCLEAR_ATTRIBUTE = (
        "the code at {place} takes a width from {detail} and it is not clear which of them must change",
        "an attribute of its own for every width",
        Cause.WIDTH,
    )
    WEIGHT_NORM = "normalised with its filter at {place}", "remove_parametrizations first", Cause.WEIGHT
    FOREIGN_WEIGHT = "combined with a weight that belongs to no layer in {place}", OWN_WEIGHT, Cause.WEIGHT
    COMPUTED_WEIGHT = "weight computed at {place}", OWN_WEIGHT, Cause.WEIGHT
    DATA_WEIGHT = "convolved with a weight computed from data at {place}", OWN_WEIGHT, Cause.WEIGHT
    GROUPED_WEIGHT = "grouped weight of an unsupported kind at {place}", OWN_WEIGHT, Cause.WEIGHT
    JOINED_WEIGHTS = "weights are concatenated at {place}", OWN_WEIGHT, Cause.WEIGHT
    GATED_WEIGHT = "a weight is gated at {place}", OWN_WEIGHT, Cause.WEIGHT
    CONVOLVED = "read by a convolution at {place}", NOTHING, Cause.SPREAD
    LINEAR = "read by a linear layer at {place}", NOTHING, Cause.SPREAD
    POOLED = "pooled at {place}", NOTHING, Cause.SPREAD
    EMPTY = "empty tensor at {place}", NOTHING, Cause.SPREAD
    NO_BIAS = "{place} has no bias to fold it into", OWN_WEIGHT, Cause.NO_BIAS
    READ_ELSEWHERE = "the bias of {place} is read outside of the layer too", OWN_WEIGHT, Cause.NO_BIAS
    NO_CARRIER = (
        "the padded weight of {place} is computed, or shared with a layer of another kind",
        OWN_WEIGHT,
        Cause.NO_BIAS,
    )
    NOT_FOLLOWED = "not traced through {place}", NOTHING, Cause.UNKNOWN
    DATA_DEPENDENT = "read behind {place} where the forward depends on data", NOTHING, Cause.DATA
    DATA_CODE = (
        "passed on behind {place} by code that may go another way with other data",
        "one module around the layers",
        Cause.DATA,
    )
    UNKNOWN_OP = "used by unknown op {place}", NOTHING, Cause.UNKNOWN

    @property
    def sentence(self) -> str:
        """The reason in words, with `{place}` or `{detail}` as placeholders."""
        return self.value[0]

    @property
    def help(self) -> str:
        """The remedy in a few words; empty if there is none."""
        return self.value[1]

    @property
    def cause(self) -> Cause:
        """What the kind has in common with others."""
        return self.value[2]


class Reason(NamedTuple):
    """Why a channel is kept: the kind of reason, the place, and a detail such as a multiple."""

    kind: Kind
    place: Place = Place()
    detail: str = ""

    def __str__(self) -> str:
        return self.kind.sentence.format(place=self.place, detail=self.detail)
