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

"""The bdevs that stand on something of the host, or on nothing.

aio stands on a file or a block device, malloc on memory, null on nothing.
Only aio outlives the target, and only what is written in its file.
"""

import errno
import os
import stat
from typing import Any

from cinder_spdk_vhost.embedded import bdevs, errors

_MIN_BLOCK = 512
# More than a target that was started with the usual memory has to give.
_MAX_MALLOC = 32 << 30

_ANY_DISK = ('read', 'write', 'reset', 'write_zeroes')


class Malloc(bdevs.Bdev):
    """A disk in memory."""

    product_name = 'Malloc disk'
    supported = bdevs.io_types(
        *_ANY_DISK, 'unmap', 'flush', 'zcopy', 'compare', 'abort', 'copy'
    )
    numa_id = -1
    # Its own description does not mention them, that of an lvol on it does.
    offers_memory_domains = True

    def __init__(
        self, name: str, block_size: int, num_blocks: int, uuid: str | None
    ) -> None:
        if block_size == 0:
            raise errors.Errno(errno.ENOMEM)
        if block_size % _MIN_BLOCK or num_blocks == 0:
            raise errors.Errno(errno.EINVAL)
        if block_size * num_blocks > _MAX_MALLOC:
            raise errors.Errno(errno.ENOMEM)
        super().__init__(name, block_size, num_blocks, uuid)


class Null(bdevs.Bdev):
    """A disk that forgets at once."""

    product_name = 'Null disk'
    supported = bdevs.io_types(*_ANY_DISK, 'abort')

    def __init__(
        self, name: str, block_size: int, num_blocks: int, uuid: str | None
    ) -> None:
        # SPDK itself does not survive a block size of 0.
        if block_size == 0 or block_size % _MIN_BLOCK or num_blocks == 0:
            raise errors.Errno(errno.EINVAL)
        super().__init__(name, block_size, num_blocks, uuid)


class Aio(bdevs.Bdev):
    """A disk in a file."""

    product_name = 'AIO disk'
    supported = bdevs.io_types(*_ANY_DISK, 'flush')

    def __init__(
        self,
        name: str,
        filename: str,
        block_size: int,
        *,
        readonly: bool = False,
        fallocate: bool = False,
        uuid: str | None = None,
    ) -> None:
        self.filename = filename
        self.readonly = readonly
        self.fallocate = fallocate
        self._override = block_size > 0
        size, detected = _probe(filename, readonly)
        block_size = block_size or detected
        if (
            block_size < _MIN_BLOCK
            or block_size & (block_size - 1)
            or size % block_size
        ):
            raise errors.Errno(errno.EINVAL)
        super().__init__(name, block_size, size // block_size, uuid)

    def rescan(self) -> None:
        """Look at the file's size again."""
        size, _ = _probe(self.filename, self.readonly)
        self.change_size(size // self.block_size)

    def driver_specific(self) -> dict[str, Any]:
        """The file and how it was opened."""
        return {
            'aio': {
                'filename': self.filename,
                'block_size_override': self._override,
                'readonly': self.readonly,
                'fallocate': self.fallocate,
                'nowait': False,
            }
        }


def _probe(filename: str, readonly: bool) -> tuple[int, int]:
    """The size of a file or block device, and a device's block size."""
    try:
        fd = os.open(filename, os.O_RDONLY if readonly else os.O_RDWR)
    except OSError as error:
        raise errors.Errno(error.errno or errno.EIO) from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise errors.Errno(errno.EINVAL)
        size = os.lseek(fd, 0, os.SEEK_END)
        return size, _MIN_BLOCK if stat.S_ISBLK(mode) else 0
    finally:
        os.close(fd)
