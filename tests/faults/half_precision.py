"""`xlm` on a CPU that claims to support fp16: DeepSpeed then scales losses as on a GPU.

python half_precision.py ARGUMENT...
"""

from __future__ import annotations

import sys

from deepspeed.accelerator import get_accelerator

from xlm_plugins.cli.main import main

type(get_accelerator()).is_fp16_supported = lambda self: True
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
