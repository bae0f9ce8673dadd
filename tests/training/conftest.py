"""One thread for torch: its threads wait by spinning, which starves them where the tests share two cores."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
