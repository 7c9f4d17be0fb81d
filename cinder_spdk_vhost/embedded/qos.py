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

"""Rate limits as SPDK keeps them, with their one trap.

Limits are enforced by a channel. A bdev that nobody does I/O to has none:
there the limits can be set once, and every later change answers "try again"
until somebody opens a channel. A channel once found is kept as long as any
descriptor of the bdev stays open.
"""

import errno

from cinder_spdk_vhost.embedded import errors

NAMES = (
    'rw_ios_per_sec',
    'rw_mbytes_per_sec',
    'r_mbytes_per_sec',
    'w_mbytes_per_sec',
)
UNSET = (1 << 64) - 1

_IOPS_STEP = 1000
_MAX_MBYTES = UNSET // (1024 * 1024)

Limits = tuple[int, int, int, int]
NO_LIMITS: Limits = (0, 0, 0, 0)


class Qos:
    """The limits of one bdev, and what enforces them."""

    __slots__ = ('_busy', '_enforced', 'limits')

    def __init__(self) -> None:
        self.limits = NO_LIMITS
        #: a channel was found to enforce them
        self._enforced = False
        #: a change is under way until the poll ends
        self._busy = False

    @property
    def _exists(self) -> bool:
        return self.limits != NO_LIMITS

    def channel_opened(self) -> None:
        """Somebody can do I/O now: the limits find a channel."""
        self._enforced = self._exists

    def last_descriptor_closed(self) -> None:
        """Nobody has the bdev open: the limits lose their channel."""
        self._enforced = False

    def begin(self, asked: dict[str, int], channels: int) -> bool:
        """Take new limits; :meth:`finish` ends the change.

        :param asked: limits by name, 0 for none; a missing one is kept
        :param channels: how many channels the bdev has
        :return: whether there is anything to change
        """
        if self._busy or (self._exists and not self._enforced):
            raise errors.Errno(errno.EAGAIN)
        if not self._exists and not any(asked.values()):
            return False
        kept = dict(zip(NAMES, self.limits, strict=True))
        for name, limit in asked.items():
            kept[name] = _rounded(name, limit)
        ios, total, read, write = (kept[name] for name in NAMES)
        self.limits = (ios, total, read, write)
        self._enforced = self._exists and (self._enforced or channels > 0)
        self._busy = True
        return True

    def finish(self) -> None:
        """The change is done."""
        self._busy = False


def _rounded(name: str, limit: int) -> int:
    if name == 'rw_ios_per_sec':
        return -(-limit // _IOPS_STEP) * _IOPS_STEP
    return min(limit, _MAX_MBYTES)
