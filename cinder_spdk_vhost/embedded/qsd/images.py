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
#: magic, version, ..., cluster_bits, size, crypt, l1_size, l1_table_offset
_HEADER = struct.Struct('>4sIQIIQIIQ')
_OFFSET = 0x00FFFFFFFFFFFE00


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
        not seen.
        """
        with self._open(image) as file:
            fd = file.fileno()
            header = _header(fd, self.path(image))
            return _allocated(fd, header, cluster_size)

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
    magic, version, _, _, bits, size, crypt, l1_size, l1_offset = (
        _HEADER.unpack(data)
    )
    if magic != _MAGIC or version not in (2, 3) or crypt:
        raise Broken(f'{path} is no qcow2 image')
    if not 9 <= bits <= 21 or not l1_offset:
        raise Broken(f'{path} has a header that makes no sense')
    return Header(bits, size, l1_size, l1_offset)


def _entries(table: bytes) -> Iterator[int]:
    return (entry for (entry,) in struct.iter_unpack('>Q', table))


def _allocated(fd: int, header: Header, cluster_size: int) -> int:
    own = 0
    size = 1 << header.cluster_bits
    # What a table of the second level spans is many clusters of the store,
    # and the clusters of a store are many entries: those that are empty are
    # told from the others as text.
    step = max(cluster_size // size, 1) * 8
    empty = bytes(step)
    l1 = os.pread(fd, header.l1_size * 8, header.l1_offset)
    for high, entry in enumerate(_entries(l1[: len(l1) // 8 * 8])):
        offset = entry & _OFFSET
        if not offset:
            continue
        l2 = os.pread(fd, size, offset)
        for position in range(0, len(l2), step):
            if l2[position : position + step] != empty[: size - position]:
                begin = (high * size + position) // 8 * size
                end = begin + step // 8 * size
                first, last = begin // cluster_size, -(-end // cluster_size)
                own |= ((1 << (last - first)) - 1) << first
    return own
