"""What the tests of training share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Networks this small lose time to threads, and all of it where several tests share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
