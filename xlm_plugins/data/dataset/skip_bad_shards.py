"""``--skip-bad-shards``: continuing without blocks that cannot be read.

The samples of such a block are missing from their batches, and nothing takes their place.  The
number of batches follows from the manifest alone, so all ranks make the same updates, and the
samples of all other blocks stay where they are.
"""

from __future__ import annotations

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.messages import warn
from xlm_plugins.data.dataset.manifest import TRAIN, Block, Manifest
from xlm_plugins.data.dataset.shards import ShardReader


class SkippingReader:
    """Reads training blocks; once a shard has failed, all of its blocks are left out.

    :param log_prefix: starts each log line, such as ``rank 1: ``.
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
        """The block's rows, as `ShardReader.read` returns them; None if the block is left out.

        :raises DataError: the whole data set is gone, or no shard of a stream can be read.
        """
        if block.shard not in self._bad:
            try:
                return self._reader.read(block)
            except DataError as error:
                self._mark_bad(block.shard, error)
        self._left_out.add(block.key)
        return None

    def take_left_out(self) -> set[str]:
        """The keys of the blocks that were left out since the last call."""
        taken, self._left_out = self._left_out, set()
        return taken

    def _mark_bad(self, shard: int, error: DataError) -> None:
        try:
            self._reader.check_reachable()
        except DataError as gone:
            raise DataError(
                f"{error.problem}; the rest of the data set is gone too: {gone.problem}",
                remedy=error.remedy,
            ) from error
        self._bad.add(shard)
        for name, shards in self._streams.items():
            if shard in shards and shards <= self._bad:
                raise DataError(
                    f"{error.problem}; no readable shard of {name} is left",
                    remedy=error.remedy,
                ) from error
        warn(f"{self._log_prefix}{error.problem}; continuing without this shard")
