"""Tests that need torch: left out where it is not installed, and on one thread.

Torch's threads wait by spinning, which starves them where the tests share two cores.
"""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)
