"""The paper (Mehta, Kim and Theobalt, CVPR 2019) as data, and the reproduction of its experiments."""
