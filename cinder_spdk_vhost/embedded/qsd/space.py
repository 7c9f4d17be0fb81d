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

"""Says when the disk under the images is full, and whom that hurts.

The daemon tells the guest of a failed write, and nobody else.
"""

from collections.abc import Iterable
import logging
import os

LOG = logging.getLogger(__name__)

#: Bytes. A write that failed gives back what it had taken, so that there is
#: some room again: more than the largest write must be left.
_LEAST = 4 << 20


class Space:
    """The file system that a directory is on."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._told: set[str] = set()

    def full(self) -> bool:
        """Whether hardly anything can be written any more."""
        about = os.statvfs(self._directory)
        blocks = about.f_bavail if os.geteuid() else about.f_bfree
        return blocks * about.f_frsize < _LEAST

    def look(self, writing: Iterable[str]) -> None:
        """Say once which of the volumes that are written to can't be."""
        if not self.full():
            if self._told:
                LOG.info('there is room under %s again', self._directory)
            self._told.clear()
            return
        new = sorted(set(writing) - self._told)
        if new:
            LOG.error(
                'no space left under %s: writes fail on %s',
                self._directory,
                ', '.join(new),
            )
            self._told.update(new)
