"""One thread per test process: two workers on two cores would otherwise fight for them."""

import torch

torch.set_num_threads(1)
