"""Shards are read back as they were written, by us and by plain webdataset."""

from __future__ import annotations

import pickle
import tarfile

import numpy as np
import pytest
import webdataset

from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset.manifest import Manifest, Stream, TokenizerRecord
from xlm_plugins.data.dataset.shards import (
    ShardReader,
    ShardWriter,
    find_damage,
    length_table,
    token_type,
)

_EN = Ragged.of([[7, 8, 9], [7], [8, 8]])
_FR = Ragged.of([[10], [11, 12], [13, 14, 15, 16]])


@pytest.fixture
def written(tmp_path):
    with ShardWriter(tmp_path / "train.en-fr-00000.tar", 0) as writer:
        for number in range(3):
            sides = tuple(
                Ragged((side.values + number).astype(np.uint16), side.offsets)
                for side in (_EN, _FR)
            )
            writer.add(f"train-en-fr-{number:06d}", ("en", "fr"), sides)
        shard = writer.finish()
    record = TokenizerRecord("words", "tests", "1", "abc", 100, {"unk": 3}, [])
    stream = Stream("train", ("en", "fr"), shard.blocks)
    return tmp_path, Manifest(record, [stream], [shard.shard])


def test_blocks_are_read_back_without_a_copy(written):
    folder, manifest = written
    reader = ShardReader(folder, manifest)
    for number, block in enumerate(manifest.streams[0].blocks):
        en, fr = reader.read(block)
        assert en.values.dtype == np.uint16
        np.testing.assert_array_equal(en.values, _EN.values + number)
        np.testing.assert_array_equal(fr.values, _FR.values + number)
        np.testing.assert_array_equal(fr.offsets, _FR.offsets)
        assert not en.values.flags.owndata
        assert not en.values.flags.writeable


def test_a_reader_can_be_sent_to_another_process(written):
    folder, manifest = written
    reader = ShardReader(folder, manifest)
    block = manifest.streams[0].blocks[2]
    expected = reader.read(block)[0].values
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(reader)).read(block)[0].values, expected
    )


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it open
def test_plain_webdataset_reads_our_shards(written):
    folder, manifest = written
    path = str(folder / manifest.shards[0].path)
    samples = list(webdataset.WebDataset(path, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [b.key for b in manifest.streams[0].blocks]
    np.testing.assert_array_equal(samples[1]["fr.tokens.npy"], _FR.values + 1)
    np.testing.assert_array_equal(samples[1]["fr.offsets.npy"], _FR.offsets)


def test_members_lie_where_the_manifest_says(written):
    folder, manifest = written
    block = manifest.streams[0].blocks[1]
    with tarfile.open(folder / manifest.shards[0].path) as tar:
        for member, (offset, size) in block.members.items():
            item = tar.getmember(f"{block.key}.{member}")
            assert (item.offset_data, item.size) == (offset, size)


def test_the_length_table_counts_sentences_and_tokens_of_both_sides():
    assert length_table((_EN, _FR)).tolist() == [[2, 1, 3], [3, 1, 4], [4, 1, 6]]
    assert length_table((_EN,)).tolist() == [[1, 1, 1], [2, 1, 2], [3, 1, 3]]


def test_ids_take_two_bytes_while_they_fit():
    assert token_type(65_535) == np.uint16
    assert token_type(65_536) == np.uint32


def test_a_truncated_shard_is_reported_with_both_sizes(written):
    folder, manifest = written
    path = folder / manifest.shards[0].path
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="truncated") as error:
        ShardReader(folder, manifest).read(manifest.streams[0].blocks[0])
    assert str(path) in error.value.problem
    assert f"{whole - 1000:,}" in error.value.problem
    assert f"{whole:,}" in error.value.expected
    assert error.value.remedy
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        ShardReader(folder, manifest).read(manifest.streams[0].blocks[0])


def test_verifying_finds_one_changed_byte(written):
    folder, manifest = written
    assert find_damage(folder, manifest) == []
    path = folder / manifest.shards[0].path
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    (reported,) = find_damage(folder, manifest)
    assert str(path) in reported
    path.write_bytes(content[:-1])
    (reported,) = find_damage(folder, manifest)
    assert "truncated" in reported


@pytest.mark.parametrize("member", ["en.tokens.npy", "fr.offsets.npy"])
def test_any_flipped_bit_of_a_header_is_reported_or_changes_nothing(written, member):
    folder, manifest = written
    block, reader = manifest.streams[0].blocks[0], ShardReader(folder, manifest)
    path, start = folder / manifest.shards[0].path, block.members[member][0]
    whole, reported = path.read_bytes(), []
    for bit in range(8 * 80):
        content = bytearray(whole)
        content[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            sides = reader.read(block)
        except DataError as error:
            reported.append(error.problem)
        else:
            for side, expected in zip(sides, (_EN, _FR), strict=True):
                np.testing.assert_array_equal(side.values, expected.values)
                np.testing.assert_array_equal(side.offsets, expected.offsets)
    assert len(reported) > 400
    assert all(f"{path} is damaged: " in problem for problem in reported)


def test_a_shard_truncated_between_two_reads_is_reported(written):
    folder, manifest = written
    reader = ShardReader(folder, manifest)
    block = manifest.streams[0].blocks[0]
    reader.read(block)
    path = folder / manifest.shards[0].path
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match="truncated"):
        reader.read(block)
