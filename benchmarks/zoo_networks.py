"""The networks of other people's packages: what each package lists, and how one of them is built by its name.

None of these packages is a dependency of slimnet, and ultralytics' licence (AGPL) is stricter than slimnet's: they are
installed by whoever runs `zoos.py`. Every network is built without downloads, with the weights that its constructor
draws.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn
from zoo import classifiers

from slimnet.compat import torchvision
from slimnet.models import build


@dataclass(frozen=True)
class Zoo:
    """A package whose networks are run.

    Attributes:
        distribution: the name that pip knows it by.
        list_names: what lists its networks.
        build: what builds one of them.
        source_of: the file of the package that defines a network; networks of one file have most of their code in
            common. By default every network counts as one of its own.
        channels: those of its images.
    """

    distribution: str
    list_names: Callable[[], list[str]]
    build: Callable[[str], nn.Module]
    source_of: Callable[[str], str] = lambda name: name
    channels: int = 3

    @property
    def version(self) -> str | None:
        """The version that is installed, or None."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None


def load(module: str) -> Any:
    """Import a module of a package that itself imports torchvision."""
    torchvision()
    return importlib.import_module(module)


def timm_names() -> list[str]:
    """Every architecture of timm."""
    return list(load("timm").list_models())


def timm_source(name: str) -> str:
    """The module of timm that defines an architecture."""
    return str(load("timm.models._registry")._model_to_module[name])


def torchvision_source(name: str) -> str:
    """The module of torchvision that defines a classifier."""
    return str(torchvision().models.get_model_builder(name).__module__)


def pytorchcv_names() -> list[str]:
    """Every architecture of pytorchcv, for images and for point sets."""
    return list(load("pytorchcv.model_provider")._models)


def pytorchcv_source(name: str) -> str:
    """The module of pytorchcv that defines an architecture."""
    return str(load("pytorchcv.model_provider")._models[name].__module__)


def build_pytorchcv(name: str) -> nn.Module:
    """An architecture of pytorchcv."""
    network: nn.Module = load("pytorchcv.model_provider").get_model(name, pretrained=False)
    return network


SEGMENTATION_DECODERS = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "PAN",
    "DeepLabV3",
    "DeepLabV3Plus",
    "UPerNet",
    "Segformer",
)
DECODER_ENCODERS = ("resnet18", "efficientnet-b0", "timm-mobilenetv3_small_100")
"""The encoders with which every decoder is built; the others are built with a U-Net."""


def segmentation_names() -> list[str]:
    """Every decoder of segmentation-models-pytorch on three encoders, and every encoder with a U-Net."""
    encoders = load("segmentation_models_pytorch").encoders.get_encoder_names()
    paired = [f"{decoder}/{encoder}" for decoder in SEGMENTATION_DECODERS for encoder in DECODER_ENCODERS]
    return paired + [f"Unet/{encoder}" for encoder in encoders if encoder not in DECODER_ENCODERS]


def segmentation_source(name: str) -> str:
    """The decoder, and the module that defines its encoder; encoders of timm are known by name only."""
    decoder, encoder = name.split("/")
    known = load("segmentation_models_pytorch").encoders.encoders.get(encoder)
    return f"{decoder}/{known['encoder'].__module__ if known else encoder}"


def build_segmentation(name: str) -> nn.Module:
    """A network named DECODER/ENCODER."""
    decoder, encoder = name.split("/")
    network: nn.Module = getattr(load("segmentation_models_pytorch"), decoder)(encoder, encoder_weights=None, classes=3)
    return network


ULTRALYTICS_CLASSES = {
    "cls": "ClassificationModel",
    "depth": "DepthModel",
    "obb": "OBBModel",
    "pose": "PoseModel",
    "seg": "SegmentationModel",
    "sem": "SemanticSegmentationModel",
    "world": "WorldModel",
    "worldv2": "WorldModel",
}
"""The class of a configuration, by a part of its file's name; all others are detectors."""


def ultralytics_names() -> list[str]:
    """Every configuration of ultralytics in its smallest scale, by its file's name."""
    folder = Path(load("ultralytics").__file__).parent / "cfg" / "models"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml") if "yoloe" not in path.name)


def ultralytics_source(name: str) -> str:
    """The configuration without the letter of its scale, as in v10/yolov10 of v10/yolov10b.yaml."""
    return re.sub(r"(v9|v10)[a-z](?=[-.])", r"\1", name.removesuffix("yaml"))


def build_ultralytics(name: str) -> nn.Module:
    """A network by its configuration; where one has several scales, ultralytics takes the smallest."""
    package, tasks = load("ultralytics"), load("ultralytics.nn.tasks")
    path = Path(package.__file__).parent / "cfg" / "models" / name
    parts = path.stem.split("-")
    found = [ULTRALYTICS_CLASSES[part] for part in parts if part in ULTRALYTICS_CLASSES]
    usual = "RTDETRDetectionModel" if "rtdetr" in path.stem else "DetectionModel"
    network: nn.Module = getattr(tasks, found[0] if found else usual)(str(path), verbose=False)
    return network


TRANSFORMERS_TASKS = (
    "BACKBONE",
    "IMAGE_CLASSIFICATION",
    "SEMANTIC_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "OBJECT_DETECTION",
    "INSTANCE_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION",
    "KEYPOINT_DETECTION",
)


def transformers_names() -> list[str]:
    """Every class of transformers for a task on images."""
    auto = load("transformers.models.auto.modeling_auto")
    found: dict[str, None] = {}
    for task in TRANSFORMERS_TASKS:
        for names in getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}).values():
            found.update(dict.fromkeys(names if isinstance(names, tuple | list) else [names]))
    return sorted(found)


def transformers_source(name: str) -> str:
    """The module of transformers that defines a class."""
    return str(getattr(load("transformers"), name).__module__)


def build_transformers(name: str) -> nn.Module:
    """A class of transformers with its default configuration, without a pretrained backbone."""
    network_class = getattr(load("transformers"), name)
    configuration = network_class.config_class()
    if getattr(configuration, "use_pretrained_backbone", False):
        configuration.use_pretrained_backbone = False
    network: nn.Module = network_class(configuration)
    return network


def monai_networks() -> dict[str, Callable[[Any], nn.Module]]:
    """Networks of MONAI for images with three channels, with BatchNorm where the norm is an argument."""
    flat = {"spatial_dims": 2, "in_channels": 3}
    units = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
    return {
        "UNet": lambda nets: nets.UNet(**flat, out_channels=2, **units, num_res_units=2, norm="batch"),
        "AttentionUnet": lambda nets: nets.AttentionUnet(**flat, out_channels=2, **units),
        "BasicUNet": lambda nets: nets.BasicUNet(**flat, norm="batch"),
        "BasicUNetPlusPlus": lambda nets: nets.BasicUNetPlusPlus(**flat, norm="batch"),
        "FlexibleUNet": lambda nets: nets.FlexibleUNet(3, 2, "efficientnet-b0"),
        "SegResNet": lambda nets: nets.SegResNet(**flat, norm="batch", init_filters=16),
        "SegResNetDS": lambda nets: nets.SegResNetDS(**flat, norm="batch", init_filters=16),
        "DynUNet": lambda nets: nets.DynUNet(
            **flat,
            out_channels=2,
            kernel_size=[3] * 4,
            strides=[1, 2, 2, 2],
            upsample_kernel_size=[2] * 3,
            norm_name="batch",
        ),
        "HighResNet": lambda nets: nets.HighResNet(**flat),
        "AHNet": lambda nets: nets.AHNet(spatial_dims=2, in_channels=3, out_channels=2),
        "DenseNet121": lambda nets: nets.DenseNet121(**flat, out_channels=3),
        "DenseNet169": lambda nets: nets.DenseNet169(**flat, out_channels=3),
        "SEResNet50": lambda nets: nets.SEResNet50(**flat),
        "SEResNext50": lambda nets: nets.SEResNext50(**flat),
        "SENet154": lambda nets: nets.SENet154(**flat),
        "ResNet18": lambda nets: nets.resnet18(spatial_dims=2, n_input_channels=3, num_classes=3),
        "ResNet50": lambda nets: nets.resnet50(spatial_dims=2, n_input_channels=3, num_classes=3),
        "EfficientNetBN-b0": lambda nets: nets.EfficientNetBN("efficientnet-b0", pretrained=False),
        "EfficientNetBN-b3": lambda nets: nets.EfficientNetBN("efficientnet-b3", pretrained=False),
        "HoVerNet": lambda nets: nets.HoVerNet(mode="fast", in_channels=3, out_classes=5),
        "MILModel": lambda nets: nets.MILModel(3, "mean", pretrained=False),
        "RegUNet": lambda nets: nets.RegUNet(2, 3, 16, 3),
        "LocalNet": lambda nets: nets.LocalNet(2, 3, 16, 3, extract_levels=(0, 1, 2, 3)),
        "TorchVisionFCModel": lambda nets: nets.TorchVisionFCModel("resnet18", num_classes=3, pretrained=False),
    }


def build_monai(name: str) -> nn.Module:
    """A network of `monai_networks`."""
    return monai_networks()[name](load("monai.networks.nets"))


def xrays() -> dict[str, Callable[[Any], nn.Module]]:
    """Networks of torchxrayvision, for images with one channel."""
    return {
        "DenseNet": lambda package: package.models.DenseNet(weights=None),
        "ResNetAE101": lambda package: package.autoencoders.ResNetAE(weights=None),
    }


def build_xray(name: str) -> nn.Module:
    """A network of torchxrayvision."""
    return xrays()[name](load("torchxrayvision"))


def faces() -> dict[str, Callable[[Any], nn.Module]]:
    """Networks of facenet-pytorch; those of its detector have no BatchNorm."""
    return {"InceptionResnetV1": lambda package: package.InceptionResnetV1(pretrained=None)}


def build_face(name: str) -> nn.Module:
    """A network of facenet-pytorch."""
    return faces()[name](load("facenet_pytorch"))


def torchreid_factories() -> dict[str, Any]:
    """What builds each architecture of torchreid, by its name."""
    known: dict[str, Any] = vars(load("torchreid").models)["__model_factory"]
    return known


def torchreid_names() -> list[str]:
    """Every architecture of torchreid that it builds by name."""
    return sorted(name for name, value in torchreid_factories().items() if callable(value))


def torchreid_source(name: str) -> str:
    """The module of torchreid that defines an architecture."""
    return str(torchreid_factories()[name].__module__)


def build_torchreid(name: str) -> nn.Module:
    """An architecture of torchreid with ten identities."""
    network: nn.Module = load("torchreid").models.build_model(name, num_classes=10, pretrained=False, use_gpu=False)
    return network


ZOOS: dict[str, Zoo] = {
    "timm": Zoo("timm", timm_names, lambda name: build(f"timm:{name}"), timm_source),
    "torchvision": Zoo("torchvision", classifiers, lambda name: build(f"torchvision:{name}"), torchvision_source),
    "pytorchcv": Zoo("pytorchcv", pytorchcv_names, build_pytorchcv, pytorchcv_source),
    "smp": Zoo("segmentation-models-pytorch", segmentation_names, build_segmentation, segmentation_source),
    "ultralytics": Zoo("ultralytics", ultralytics_names, build_ultralytics, ultralytics_source),
    "transformers": Zoo("transformers", transformers_names, build_transformers, transformers_source),
    "torchxrayvision": Zoo("torchxrayvision", lambda: sorted(xrays()), build_xray, channels=1),
    "facenet": Zoo("facenet-pytorch", lambda: sorted(faces()), build_face),
    "monai": Zoo("monai", lambda: sorted(monai_networks()), build_monai),
    "torchreid": Zoo("torchreid", torchreid_names, build_torchreid, torchreid_source),
}
"""The packages whose networks are run."""
