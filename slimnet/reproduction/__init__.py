"""The paper (Mehta, Kim and Theobalt, CVPR 2019) as data, and what it takes to do its experiments again."""
