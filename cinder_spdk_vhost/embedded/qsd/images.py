#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The image files of a store's volumes.

An image that nobody has written to has no file: what is missing reads as
its parent, or as zeros. A file appears under its name when it is complete.
"""

from collections.abc import Iterator
import contextlib
import os
import shutil
import struct
from typing import BinaryIO, NamedTuple

_MAGIC = b'QFI\xfb'
#: magic, version, backing file's offset and size, cluster_bits, size, crypt,
#: l1_size, l1_table_offset, refcount table's offset and clusters, snapshots'
#: count and offset, incompatible features (of version 3)
_HEADER = struct.Struct('>4sIQIIQIIQQIIQQ')
_DIRTY, _CORRUPT = 1, 2
_OFFSET = 0x00FFFFFFFFFFFE00
#: In an entry of a table: nobody else uses what it points to; there is
#: nothing and it reads as zeros.
_OWN, _ZEROS = 1 << 63, 1
#: The largest tables that QEMU takes, in bytes.
_LARGEST_L1, _LARGEST_REFCOUNTS = 32 << 20, 8 << 20


class Broken(Exception):
    """A file is no image that could be used; the text says why."""


class Header(NamedTuple):
    """What the first bytes of an image say.

    :ivar size: of the volume, in bytes
    """

    cluster_bits: int
    size: int
    l1_size: int
    l1_offset: int
    refcounts_offset: int
    refcounts_clusters: int


class Images:
    """The files of one store.

    :param directory: made when the first image is
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, image: str) -> str:
        """Where an image is, or would be."""
        return os.path.join(self.directory, f'{image}.qcow2')

    def exists(self, image: str) -> bool:
        """Whether anybody has written to an image."""
        return os.path.exists(self.path(image))

    def begin(self, image: str) -> str:
        """An empty file that becomes an image with :meth:`complete`."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        path = f'{self.path(image)}.new'
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.close(fd)
        return path

    def complete(self, image: str) -> None:
        """The file is an image now, and survives the host."""
        path = self.path(image)
        os.rename(f'{path}.new', path)
        fd = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, image: str) -> None:
        """Delete an image, if it has a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(image))

    def sweep(self, known: set[str]) -> None:
        """Delete what no volume has: left by a kill at the wrong moment."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                image, _, kind = name.partition('.')
                if kind == 'qcow2.new' or image not in known:
                    os.unlink(os.path.join(self.directory, name))

    def remove_all(self) -> None:
        """Delete the store's images."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def header(self, image: str) -> Header:
        """Read an image's header; :class:`Broken` if it has none."""
        with self._open(image) as file:
            return _header(file.fileno(), self.path(image))

    def clusters(self, image: str, cluster_size: int) -> int:
        """Which clusters of a store an image has data in, as a map.

        Reads the image's tables, of which there are 8 bytes for each 64 KiB
        that was ever written; what its users still keep to themselves is
        not seen. :class:`Broken` where they point to what can't be data.
        """
        with self._open(image) as file:
            fd = file.fileno()
            path = self.path(image)
            header = _header(fd, path)
            try:
                _check_refcounts(fd, header)
                return _allocated(fd, header, cluster_size)
            except Broken as error:
                raise Broken(f'{path} {error}') from error

    def _open(self, image: str) -> BinaryIO:
        try:
            return open(self.path(image), 'rb')
        except OSError as error:
            raise Broken(
                f'{self.path(image)} can not be read: {error.strerror}'
            ) from error


def _header(fd: int, path: str) -> Header:
    data = os.pread(fd, _HEADER.size, 0)
    if len(data) < _HEADER.size:
        raise Broken(f'{path} has {len(data)} bytes and no header')
    magic, version, _, _, bits, size, crypt, l1_size, l1_offset, *more = (
        _HEADER.unpack(data)
    )
    if magic != _MAGIC or version not in (2, 3) or crypt:
        raise Broken(f'{path} is no qcow2 image')
    refcounts_offset, refcounts_clusters, _, _, features = more
    if version == 3 and features & _CORRUPT:
        raise Broken(f'{path} is marked as corrupt')
    if (
        not 9 <= bits <= 21
        or not l1_offset
        or l1_size * 8 > _LARGEST_L1
        or refcounts_clusters << bits > _LARGEST_REFCOUNTS
        or (version == 3 and features & ~_DIRTY)
    ):
        raise Broken(f'{path} has a header that makes no sense')
    return Header(
        bits, size, l1_size, l1_offset, refcounts_offset, refcounts_clusters
    )


def _entries(table: bytes) -> Iterator[int]:
    return (entry for (entry,) in struct.iter_unpack('>Q', table))


class _Tables:
    """Tables of pointers to clusters of a file, and what can't be one."""

    def __init__(self, fd: int, cluster_bits: int) -> None:
        self._fd = fd
        self._inside = (1 << cluster_bits) - 1
        self._beyond = ~((1 << os.fstat(fd).st_size.bit_length()) - 1)
        self._masks: dict[tuple[int, int], int] = {}

    def read(self, offset: int, size: int, flags: int = 0) -> bytes:
        """A table; its entries have only these bits beside an offset."""
        if offset & self._inside:
            raise Broken('has a table at no place for one')
        table = os.pread(self._fd, size, offset)
        if len(table) != size:
            raise Broken('has a table beyond its end')
        # All entries at once, as one large number.
        if int.from_bytes(table) & self._mask(size // 8, flags):
            raise Broken('has a table with nonsense in it')
        return table

    def _mask(self, count: int, flags: int) -> int:
        mask = self._masks.get((count, flags))
        if mask is None:
            wrong = (self._inside | self._beyond) & ~flags & ((1 << 64) - 1)
            mask = int.from_bytes(wrong.to_bytes(8) * count)
            self._masks[count, flags] = mask
        return mask


def _check_refcounts(fd: int, header: Header) -> None:
    """Without them QEMU does not open an image, or gives it up later."""
    _Tables(fd, header.cluster_bits).read(
        header.refcounts_offset,
        header.refcounts_clusters << header.cluster_bits,
    )


def _allocated(fd: int, header: Header, cluster_size: int) -> int:
    own = 0
    size = 1 << header.cluster_bits
    # What a table of the second level spans is many clusters of the store,
    # and the clusters of a store are many entries: those that are empty are
    # told from the others as text.
    step = max(cluster_size // size, 1) * 8
    empty = bytes(step)
    # A cluster that was discarded has no place, and says that it is zeros.
    places = int.from_bytes(_OFFSET.to_bytes(8) * (size // 8))
    tables = _Tables(fd, header.cluster_bits)
    l1 = tables.read(header.l1_offset, header.l1_size * 8, _OWN)
    for high, entry in enumerate(_entries(l1)):
        offset = entry & _OFFSET
        if not offset:
            continue
        l2 = tables.read(offset, size, _OWN | _ZEROS)
        l2 = (int.from_bytes(l2) & places).to_bytes(size)
        for position in range(0, len(l2), step):
            if l2[position : position + step] != empty[: size - position]:
                begin = (high * size + position) // 8 * size
                end = begin + step // 8 * size
                first, last = begin // cluster_size, -(-end // cluster_size)
                own |= ((1 << (last - first)) - 1) << first
    return own
