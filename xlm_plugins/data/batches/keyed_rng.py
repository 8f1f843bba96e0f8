"""Keyed random numbers: every draw of the data path is a pure function of its purpose.

No generator is kept from one update to the next.  A draw is keyed by what it decides, such as
(seed, objective, step, epoch, lane), so that any process can make any part of any batch in any
order, and a resumed run needs no random state.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_rng(*key: int | str) -> np.random.Generator:
    """The generator for one purpose: equal keys give equal numbers on every machine.

    :param key: the random seed, then what the numbers are for.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
