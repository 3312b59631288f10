"""timm's families with BatchNorm: nothing may crash, nothing may be wrong; what cannot go is kept, with a reason.

Among them are selective kernels, split attention, cascades of attention groups, ghosts, networks of several branches
that are one convolution later, and hybrids with transformers.
"""

import pytest
import torch
from test_zoo import check_exact, drawn

from slimnet.models import build

pytest.importorskip("timm")

FAMILIES = (
    "resnet18",
    "resnet26t",
    "resnet14t",
    "legacy_seresnet18",
    "ecaresnet26t",
    "seresnext26t_32x4d",
    "skresnet18",
    "res2net50_14w_8s",
    "resnest14d",
    "selecsls42",
    "dla34",
    "dla46_c",
    "dpn48b",
    "densenet121",
    "vovnet39a",
    "ese_vovnet19b_slim_dw",
    "hardcorenas_a",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "tf_mobilenetv3_small_minimal_100",
    "lcnet_035",
    "mnasnet_small",
    "semnasnet_075",
    "fbnetc_100",
    "fbnetv3_b",
    "spnasnet_100",
    "tinynet_e",
    "efficientnet_lite0",
    "efficientnet_b0",
    "mixnet_s",
    "rexnet_100",
    "rexnetr_100",
    "ghostnet_050",
    "ghostnetv2_100",
    "ghostnetv3_050",
    "mobileone_s0",
    "repvgg_a0",
    "repvit_m0_9",
    "repghostnet_050",
    "fastvit_t8",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientvit_b0",
    "efficientvit_m0",
    "regnetx_002",
    "regnety_002",
    "regnetz_b16",
    "cspresnet50",
    "cspdarknet53",
    "cspresnext50",
    "darknet17",
    "cs3darknet_s",
    "cs3darknet_focus_s",
    "cs3darknet_x",
    "hrnet_w18_small",
    "lambda_resnet26t",
)
SAMPLE = (
    "mobilenetv4_conv_small_035",
    "ese_vovnet19b_slim_dw",
    "ghostnet_050",
    "repghostnet_050",
    "efficientvit_m0",
    "lcnet_035",
)
"""What a plain run looks at."""


def check(name: str, fraction: float, beta: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(f"timm:{name}").eval()
    plan = check_exact(model.double(), name, fraction, beta)
    dead = sum(layer.dead for layer in plan.layers)
    assert dead == plan.removed_channels + sum(len(kept.channels) for kept in plan.kept)


@pytest.mark.parametrize(("name", "fraction", "beta"), [drawn(name) for name in SAMPLE])
def test_a_network_of_some_families_stays_exact(name: str, fraction: float, beta: str) -> None:
    """Dead channels drawn independently per BatchNorm, β as drawn, weights as initialised."""
    check(name, fraction, beta)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_stays_exact(name: str) -> None:
    """One network or two of each family, with a fraction and a β drawn by its name."""
    check(*drawn(name))
