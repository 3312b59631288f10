"""Architectures by name: from `resnet56` or `torchvision:resnet50` to a module, and back to the name."""

import contextlib
import copy
import difflib
import inspect
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from slimnet import compat
from slimnet.errors import ArchitectureError, UsageError, reason, shown
from slimnet.models.basicnet import BasicNet
from slimnet.models.cifar_resnet import CifarResNet
from slimnet.models.densenet import CifarDenseNet
from slimnet.models.preact_resnet import PreActResNet
from slimnet.models.untrusted import UntrustedName, check_reference, imports_code
from slimnet.models.user_code import import_user_code
from slimnet.models.vgg import VGG

ATTRIBUTE = "slimnet_architecture"
"""Where a module holds its reference, as plain data: pickled, it can be read where slimnet is not installed."""

Factory = Callable[..., nn.Module]

BUILTIN_ARCHITECTURES: Mapping[str, Factory] = {
    "basicnet": BasicNet,
    **{f"vgg{depth}": partial(VGG, depth) for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "resnet164": partial(PreActResNet, 164),
    "densenet40": partial(CifarDenseNet, 40),
}
"""The networks that come with slimnet, by name."""

FORMS = f"{', '.join(BUILTIN_ARCHITECTURES)}, torchvision:NAME, timm:NAME, package.module:factory or file.py:Class"
"""The forms of an architecture's name, for messages and help texts."""


@dataclass(frozen=True)
class Architecture:
    """A reference from which a network can be built again: a name and the arguments of its factory.

    The name is a built-in one (`basicnet`, `vgg16`, `resnet56`, ...), `torchvision:NAME`, `timm:NAME`, or
    `package.module:factory` (or `path/file.py:factory`), a class or function that returns a module.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def imports_code(self) -> bool:
        """Whether building it imports and calls arbitrary code (`package.module:factory`).

        If so, a reference that was read from a file (`from_json`) is not built unless it is `trusted`.
        """
        return imports_code(self.name)

    @property
    def is_trusted(self) -> bool:
        """Whether the reference was written by the caller, and did not come with a file."""
        return not isinstance(self.name, UntrustedName)

    def build(self) -> nn.Module:
        """Build the network; see `build`."""
        return build(self.name, self.args)

    def to_json(self) -> dict[str, Any]:
        """The reference as a plain dict that `json` can write.

        Raises:
            ArchitectureError: an argument cannot be represented in JSON.
        """
        try:
            return {"name": self.name, "args": json.loads(json.dumps(self.args))}
        except (TypeError, ValueError) as error:
            raise ArchitectureError(
                f"the arguments of {self.name} cannot be written down ({reason(error)}); "
                "wrap them in a factory of your own, package.module:factory"
            ) from error

    @classmethod
    def from_json(cls, data: Any) -> "Architecture":
        """Read the data of `to_json`; it is untrusted, and `build` refuses references that run code or open files.

        Raises:
            ArchitectureError: the data has another form.
        """
        if not isinstance(data, Mapping) or set(data) != {"name", "args"}:
            raise ArchitectureError("an architecture reference has exactly the entries 'name' and 'args'")
        return cls(UntrustedName(_checked_name(data["name"])), _checked_args(data["args"]))

    def trusted(self) -> "Architecture":
        """The same reference, trusted like one that the caller wrote: `build` runs the code that it names."""
        return Architecture(str(self.name), self.args)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        return f"{self.name} ({values})" if values else self.name


def build(arch: str, arch_args: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network with its usual random initialisation, in the mode that its factory sets.

    `arch` is a built-in architecture such as "resnet56", "torchvision:NAME", "timm:NAME", "package.module:factory" or
    "file.py:Class"; `arch_args` are its keyword arguments. Networks from torchvision and timm are built without
    pretrained weights (and without the slow initialisation of GoogLeNet and Inception v3) unless `arch_args` say
    otherwise. Both arguments are stored on the module; see `architecture_of`.

    Raises:
        ArchitectureError: there is no such architecture, it does not take an argument, its factory fails, or a
            reference from a file would run code or open other files (`slimnet.models.untrusted`).
    """
    arguments = {} if arch_args is None else arch_args
    if isinstance(arch, UntrustedName):
        check_reference(arch, _checked_args(arguments))
    architecture = Architecture(_checked_name(arch), _checked_args(arguments))
    try:
        model = _call(_factory(arch), architecture)
    except ArchitectureError:
        raise
    except UsageError as error:
        raise ArchitectureError(f"{arch}: {error}") from error
    vars(model)[ATTRIBUTE] = {"name": str(architecture.name), "args": architecture.args}
    return model


def known_as(names: Sequence[str]) -> str | None:
    """The reference of the first of these bare names that is a network's, such as torchvision:resnet18; None for none.

    Built-in networks come first, then torchvision's, then timm's where that is installed. Nothing is built.
    """
    for name in names:
        if name in BUILTIN_ARCHITECTURES:
            return name
    for source, find in (("torchvision", _torchvision_factory), ("timm", _timm_factory)):
        for name in names:
            with contextlib.suppress(UsageError):
                find(name)
                return f"{source}:{name}"
    return None


def architecture_of(model: nn.Module) -> Architecture | None:
    """The reference from which `build` built the module or the original of a copy; None for any other module."""
    match vars(model).get(ATTRIBUTE):
        case {"name": str() as name, "args": dict() as args}:
            return Architecture(name, args)
        case Architecture() as reference:
            return reference
    return None


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ArchitectureError(f"an architecture is named by text, got {shown(name)}; use one of {FORMS}")
    return name


def _checked_args(args: Any) -> dict[str, Any]:
    if not isinstance(args, Mapping) or not all(isinstance(key, str) for key in args):
        raise ArchitectureError(f'arch_args map names to values, such as {{"num_classes": 100}}; got {shown(args)}')
    return copy.deepcopy(dict(args))


def _factory(arch: str) -> Factory:
    """The factory of the network with this name."""
    source, colon, name = arch.partition(":")
    if arch in BUILTIN_ARCHITECTURES:
        return BUILTIN_ARCHITECTURES[arch]
    if source == "torchvision" and colon:
        return _torchvision_factory(name)
    if source == "timm" and colon:
        return _timm_factory(name)
    if source and name:
        return _imported_factory(source, name)
    raise ArchitectureError(f"{_unknown(arch, _known_by_bare_name())} (there are {FORMS})")


def _torchvision_factory(name: str) -> Factory:
    models = compat.torchvision().models
    known = models.list_models()
    if name not in known:
        raise ArchitectureError(_unknown(f"torchvision:{name}", {each: f"torchvision:{each}" for each in known}))
    builder = models.get_model_builder(name)
    without_weights = {"weights": None, "weights_backbone": None}
    accepted = inspect.signature(builder).parameters
    defaults: dict[str, Any] = {key: value for key, value in without_weights.items() if key in accepted}
    if name in ("googlenet", "inception_v3"):
        # By default these draw every weight with SciPy, which takes seconds and emits a warning.
        defaults["init_weights"] = False
    return partial(builder, **defaults)


def _timm_factory(name: str) -> Factory:
    timm = compat.timm()
    # `is_model` also excludes names such as hf-hub:owner/name, which would be downloaded.
    if ":" in name or "/" in name or not timm.is_model(name):
        known = timm.list_models()
        raise ArchitectureError(_unknown(f"timm:{name}", {each: f"timm:{each}" for each in known}))
    return partial(timm.create_model, name, pretrained=False)


def _imported_factory(module_name: str, path: str) -> Factory:
    """Import `module_name` and look up the dotted `path` in it."""
    arch = f"{module_name}:{path}"
    try:
        module = import_user_code(module_name)
    except (Exception, SystemExit) as error:
        where = (
            "is the path right" if module_name.endswith(".py") else "is it installed, on PYTHONPATH or in this folder"
        )
        raise ArchitectureError(f"{arch}: importing {module_name} failed: {reason(error)}; {where}?") from error
    try:
        factory = operator.attrgetter(path)(module)
    except AttributeError as error:
        public = {name: f"{module_name}:{name}" for name in vars(module) if not name.startswith("_")}
        raise ArchitectureError(_unknown(arch, public)) from error
    if isinstance(factory, nn.Module) or not callable(factory):
        kind = type(factory).__name__
        raise ArchitectureError(f"{arch} holds {kind}; name a class or a function that returns an nn.Module")
    return factory


def _call(factory: Factory, architecture: Architecture) -> nn.Module:
    """Call the factory and turn its exceptions into errors of one line."""
    arch, args = architecture.name, copy.deepcopy(architecture.args)
    _check_signature(factory, architecture)
    try:
        model = factory(**args)
    except ArchitectureError as error:
        raise ArchitectureError(f"{arch}: {error}") from error
    except (Exception, SystemExit) as error:
        foreign = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and foreign is not None and foreign[1] in args:
            raise ArchitectureError(f"{arch} takes no argument {foreign[1]!r}") from error
        raise ArchitectureError(f"{architecture} could not be built: {reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise ArchitectureError(f"{arch} must return an nn.Module but returned {type(model).__name__}")
    return model


def _check_signature(factory: Factory, architecture: Architecture) -> None:
    """Compare the arguments with the factory's signature, if it has one."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    names = [each.name for each in by_name]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    foreign = [name for name in architecture.args if name not in names]
    if foreign and not takes_any:
        takes = f"it takes {', '.join(names)}" if names else "it takes none"
        raise ArchitectureError(f"{architecture.name} takes no argument {', '.join(map(repr, foreign))}; {takes}")
    lacking = [each.name for each in by_name if each.default is each.empty and each.name not in architecture.args]
    if lacking:
        raise ArchitectureError(f"{architecture.name} needs {', '.join(map(repr, lacking))} in arch_args")


def _unknown(arch: str, known: Mapping[str, str]) -> str:
    """The message for an unknown name, with the closest of the `known` (bare name to full name)."""
    bare = arch.rpartition(":")[2].lower()
    lower = {name.lower(): full for name, full in known.items()}
    close = [lower[each] for each in difflib.get_close_matches(bare, lower, n=4, cutoff=0.6)]
    if not close:
        return f"unknown architecture {arch!r}"
    choice = f"{', '.join(close[:-1])} or {close[-1]}" if len(close) > 1 else close[0]
    return f"unknown architecture {arch!r}; did you mean {choice}?"


def _known_by_bare_name() -> dict[str, str]:
    """The built-in names, and torchvision's, which users may give without the prefix."""
    try:
        others = compat.torchvision().models.list_models()
    except UsageError:
        others = []
    return {**{name: f"torchvision:{name}" for name in others}, **{name: name for name in BUILTIN_ARCHITECTURES}}
