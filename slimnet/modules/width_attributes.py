"""Width attributes: the numbers in modules (`in_channels`, `num_features`, ...) that must agree with their weights."""

from collections.abc import Mapping

import torch
from torch import nn

from slimnet.errors import PlanError
from slimnet.models.cifar_resnet import PadShortcut
from slimnet.modules.network import Network


def update_width_attributes(network: Network, groups: Mapping[str, int]) -> None:
    """Set the modules' `in_channels`, `num_features` and so on to the shapes of their weights.

    `groups` are the new numbers of groups, by the name of the weight.
    """
    for path, module in network.modules.items():
        if module._parameters or module._buffers:
            weight = f"{path}.weight" if path else "weight"
            update_attributes(module, groups.get(weight, groups.get(f"{weight}_orig")))


def update_attributes(module: nn.Module, groups: int | None) -> None:
    """Set the width attributes of one module; `groups` is its new number of groups if that changes."""
    match module:
        case nn.modules.conv._ConvNd() | nn.Linear() if not has_weight(module):
            # Its forward sets the weight, which no call has done yet.
            pass
        case nn.modules.conv._ConvNd():
            update_convolution(module, groups)
        case nn.Linear():
            module.out_features, module.in_features = stored(module, "weight").shape
        case nn.modules.batchnorm._NormBase():
            update_batch_norm(module)
        case nn.GroupNorm(weight=torch.Tensor()):
            update_group_norm(module)
        case nn.LayerNorm(weight=torch.Tensor(ndim=1)):
            module.normalized_shape = tuple(module.weight.shape)
        case nn.RNNCellBase():
            module.input_size = module.weight_ih.shape[1]
        case nn.RNNBase():
            module.input_size = module.get_parameter("weight_ih_l0").shape[1]
        case nn.PReLU():
            module.num_parameters = module.weight.shape[0]


def has_weight(module: nn.Module) -> bool:
    """Whether a layer has a weight now, or the parameter from which it is computed."""
    return "weight_orig" in module._parameters or hasattr(module, "weight")


def stored(module: nn.Module, name: str) -> torch.Tensor:
    """A weight, or the parameter from which `torch.nn.utils.prune` computes it."""
    parameters = module._parameters
    own = parameters.get(f"{name}_orig", parameters.get(name))
    return getattr(module, name) if own is None else own


def update_convolution(module: nn.modules.conv._ConvNd, groups: int | None) -> None:
    """Set a convolution's numbers of channels and groups from its weight; depthwise ones remain depthwise."""
    weight = stored(module, "weight")
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        if groups is None and module.groups == module.in_channels > 1:
            groups = weight.shape[0]
        groups = groups or module.groups
        inputs, outputs = weight.shape[0], weight.shape[1] * groups
    else:
        if groups is None and module.groups == module.in_channels > 1:
            groups = weight.shape[0] * module.groups // module.out_channels
        groups = groups or module.groups
        inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    # Without the module's `__setattr__`, which takes longer than all of the above.
    vars(module).update(groups=groups, in_channels=inputs, out_channels=outputs)


def update_batch_norm(module: nn.modules.batchnorm._NormBase) -> None:
    """Set a normalisation's number of channels from γ, or from the running mean without one."""
    sized = module.running_mean if module.weight is None else module.weight
    if sized is not None and sized.shape[0] != module.num_features:
        module.num_features = sized.shape[0]


def update_group_norm(module: nn.GroupNorm) -> None:
    """Set a GroupNorm's numbers of channels and groups from γ; its groups remain as large as they are."""
    size = module.num_channels // module.num_groups
    module.num_channels = module.weight.shape[0]
    module.num_groups = module.num_channels // size


def set_padding(model: nn.Module, path: str, before: int, after: int) -> None:
    """Set the numbers of zero channels that a `PadShortcut` adds."""
    module = submodule(model, path)
    if not isinstance(module, PadShortcut):
        raise PlanError(f"the plan changes the padding of {path or 'the network'}, which does not pad")
    module.before, module.after = before, after


def set_features(model: nn.Module, path: str, channels: int) -> None:
    """Set the number of channels of a normalisation without tensors."""
    module = submodule(model, path)
    if not isinstance(module, nn.modules.batchnorm._NormBase):
        raise PlanError(f"the plan counts the channels of {path or 'the network'}, which does not normalise")
    module.num_features = channels


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        PlanError: there is none.
    """
    for name in path.split(".") if path else ():
        child = model._modules.get(name)
        if child is None:
            raise PlanError(f"the plan changes {path}, which the network does not have")
        model = child
    return model
