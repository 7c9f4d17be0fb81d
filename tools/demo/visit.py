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

"""A guest on the attached volume: what the whole is for."""

import contextlib
from typing import Any

from account import Account

from tests.fixtures import guest as guests
from tests.fixtures.guest import load, pattern

_MIB = 8
_LABEL = 'demo'
_LOAD_SECONDS = 3
_GIB = 1024**3
#: What the embedded target can't but call a disk.
_ANONYMOUS = 'vhost_user_blk'


class Visit:
    """The steps of a guest whose only disk is the volume.

    :param socket: of the volume's vhost controller
    """

    def __init__(self, account: Account, socket: str) -> None:
        self._account = account
        self._guest = guests.Guest([guests.Disk(socket)])
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> 'Visit':
        with self._account.step('guest boots') as step:
            self._stack.enter_context(self._guest)
            kernel = self._guest.run('uname -r').strip()
            step.note(f'QEMU with Linux {kernel}, disk on the socket above')
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def look(self) -> None:
        """Its disk's name and size."""
        with self._account.step('guest sees its disk') as step:
            disk = self._guest.disk('vda')
            step.note(f'/dev/vda of {disk.size // _GIB} GiB, id {disk.serial}')
            if disk.serial == _ANONYMOUS:
                step.note('which QEMU calls every disk; SPDK gives it a name')
        self._account.facts['guest_disk_id'] = disk.serial

    def write(self) -> None:
        """Blocks that can be told from any others."""
        with self._account.step(f'guest writes {_MIB} MiB') as step:
            pattern.write(self._guest, 'vda', _LABEL, 0, _MIB)
            step.note('direct, flushed')

    def read_back(self) -> None:
        """The same blocks."""
        with self._account.step('guest reads them back') as step:
            read = pattern.read_digest(self._guest, 'vda', 0, _MIB)
            written = pattern.digest(_LABEL, 0, _MIB)
            if read != written:
                raise RuntimeError(f'read MD5 {read}, written {written}')
            step.note(f'MD5 {read}, as written')

    def load(self, limits: dict[str, int]) -> None:
        """As many small reads as it can do."""
        with self._account.step('guest reads as fast as it can') as step:
            done = load.run(self._guest, 'vda', 'read', _LOAD_SECONDS)
            limit = limits['rw_ios_per_sec'] or 'unlimited'
            step.note(f'{done.iops:.0f} IOPS of 4 KiB; limit: {limit}')

    def grow(self, extend: Any, gib: int) -> None:
        """The volume is extended under it.

        :param extend: does it, to so many GiB
        """
        with self._account.step('guest sees an extension') as step:
            extend(gib)
            self._guest.run(
                f'until [ $(cat /sys/block/vda/size) = {gib * _GIB // 512} ]; '
                'do sleep 0.1; done',
                timeout=20,
            )
            step.note(f'now {gib} GiB, without a reboot')

    def leave(self) -> None:
        """Switch it off."""
        with self._account.step('guest switches off'):
            self._guest.power_off()
