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

"""What guests did to the disks, read off the daemon's trace.

The daemon keeps no statistics of its exports. It can write a line for each
request that reaches one: which node, where, how many bytes. The line for a
node's opening tells the address under which the others know it.
"""

import logging
import re

from cinder_spdk_vhost.embedded import bdevs

LOG = logging.getLogger(__name__)

#: The driver of the nodes on which exports stand.
TOP = 'throttle'

_REQUEST = re.compile(
    r'blk_co_p(read|write)v blk \S+ bs (\S+) offset \d+ bytes (\d+) '
)
_OPENED = re.compile(r'bdrv_open_common bs (\S+) .* format_name "(.*)"$')


class Traffic:
    """Counts what is done to bdevs."""

    def __init__(self) -> None:
        self._opened = ''
        self._bdevs: dict[str, bdevs.Bdev] = {}
        self._written: set[bdevs.Bdev] = set()
        self._writing: set[bdevs.Bdev] = set()

    def forget(self) -> None:
        """The daemon has died: its addresses mean nothing now."""
        self._bdevs.clear()

    def line(self, text: str) -> None:
        """Take one line of what the daemon writes."""
        request = _REQUEST.match(text)
        if request is not None:
            bdev = self._bdevs.get(request[2])
            if bdev is not None:
                self._count(bdev, request[1], int(request[3]))
            return
        opened = _OPENED.match(text)
        if opened is None:
            if text.strip() and not text.startswith(('bdrv_', 'blk_')):
                LOG.warning('qemu-storage-daemon: %s', text)
        elif opened[2] == TOP:
            self._opened = opened[1]

    def _count(self, bdev: bdevs.Bdev, kind: str, size: int) -> None:
        io = bdev.io
        if kind == 'read':
            io.num_read_ops += 1
            io.bytes_read += size
        else:
            io.num_write_ops += 1
            io.bytes_written += size
            self._written.add(bdev)
            self._writing.add(bdev)

    def follow(self, bdev: bdevs.Bdev) -> str:
        """The node that was opened last is a bdev's; gives its address."""
        self._bdevs[self._opened] = bdev
        return self._opened

    def leave(self, address: str) -> None:
        """A node was closed."""
        self._bdevs.pop(address, None)

    def written(self) -> set[bdevs.Bdev]:
        """The bdevs whose data may have grown since this was last asked."""
        written, self._written = self._written, set()
        return written

    def writing(self) -> set[bdevs.Bdev]:
        """The bdevs that were written to since this was last asked.

        A line comes when a write begins, and its data can be seen when it
        has ended: these have to be looked at once more.
        """
        writing, self._writing = self._writing, set()
        self._written |= writing
        return writing
