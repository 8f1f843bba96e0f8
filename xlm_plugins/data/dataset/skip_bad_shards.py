"""Going on without the blocks that cannot be read.

What is left out is a hole: the samples of the block are missing from the batches that they would
have been in.  How many batches there are follows from the manifest alone, so all ranks make the
same updates, and every other block's samples come where they would have come.
"""

from __future__ import annotations

import logging

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset.manifest import TRAIN, Block, Manifest
from xlm_plugins.data.dataset.shards import ShardReader

_log = logging.getLogger(__name__)


class SkippingReader:
    """Reads training blocks; those of a shard that failed once are left out from then on.

    :param reader: tells why a shard cannot be read.
    :param log_prefix: what log lines begin with, such as ``rank 1: ``.
    """

    def __init__(self, reader: ShardReader, manifest: Manifest, log_prefix: str = "") -> None:
        self._reader = reader
        self._log_prefix = log_prefix
        self._streams = {
            stream.name: {block.shard for block in stream.blocks}
            for stream in manifest.streams
            if stream.split == TRAIN
        }
        self._bad: set[int] = set()
        self._left_out: set[str] = set()

    def read(self, block: Block) -> tuple[Ragged, ...] | None:
        """The block's rows as `ShardReader.read`; None where it is left out.

        :raises DataError: the data set as a whole is gone, or all of a stream's shards are.
        """
        if block.shard not in self._bad:
            try:
                return self._reader.read(block)
            except DataError as error:
                self._give_up(block.shard, error)
        self._left_out.add(block.key)
        return None

    def take_left_out(self) -> set[str]:
        """The keys of the blocks that were left out since the last call."""
        taken, self._left_out = self._left_out, set()
        return taken

    def _give_up(self, shard: int, error: DataError) -> None:
        try:
            self._reader.check_reachable()
        except DataError as gone:
            raise DataError(
                f"{error.problem}; nor is anything else of the data set there: {gone.problem}",
                remedy=error.remedy,
            ) from error
        self._bad.add(shard)
        for name, shards in self._streams.items():
            if shard in shards and shards <= self._bad:
                raise DataError(
                    f"{error.problem}; no shard of {name} is left that can be read",
                    remedy=error.remedy,
                ) from error
        _log.warning("%s%s; going on without this shard", self._log_prefix, error.problem)
