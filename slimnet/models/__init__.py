"""Networks: built-in architectures, and those of other packages by name."""

from slimnet.models.architecture import Architecture, architecture_of, build
from slimnet.models.basicnet import BasicNet
from slimnet.models.cifar_resnet import CifarResNet, PadShortcut
from slimnet.models.densenet import CifarDenseNet
from slimnet.models.preact_resnet import PreActResNet
from slimnet.models.vgg import VGG

__all__ = [
    "VGG",
    "Architecture",
    "BasicNet",
    "CifarDenseNet",
    "CifarResNet",
    "PadShortcut",
    "PreActResNet",
    "architecture_of",
    "build",
]
