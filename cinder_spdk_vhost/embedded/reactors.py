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

"""The cores that the target says it runs on, and the threads on them.

A real target polls on each core of its mask. This one has a single thread;
it keeps the mask so that what depends on it (cpumasks, placement) can be
tried.
"""

import os
import re
import time
from typing import Any

TICK_RATE = 1_000_000_000
_MAX_CORES = 1024


class MaskError(ValueError):
    """Not a mask of cores."""


def parse_mask(text: str) -> int:
    """A mask as SPDK takes it: hexadecimal, or a list as ``[0,2-3]``."""
    if text.startswith('[') and text.endswith(']'):
        mask = _list_mask(text[1:-1])
    else:
        digits = text[2:] if text[:2].lower() == '0x' else text
        if not re.fullmatch('[0-9a-fA-F]+', digits):
            raise MaskError(text)
        mask = int(digits, 16)
    if mask == 0 or mask.bit_length() > _MAX_CORES:
        raise MaskError(text)
    return mask


def _list_mask(text: str) -> int:
    mask = 0
    for part in text.split(','):
        match = re.fullmatch(r'\s*(\d{1,4})(?:-(\d{1,4}))?\s*', part)
        if match is None:
            raise MaskError(text)
        low = int(match[1])
        high = int(match[2] or low)
        if high < low:
            raise MaskError(text)
        mask |= ((1 << (high - low + 1)) - 1) << low
    return mask


def cores(mask: int) -> list[int]:
    """The cores of a mask."""
    return [core for core in range(mask.bit_length()) if mask >> core & 1]


def ticks() -> int:
    """Now, on the clock that all ticks are of."""
    return time.monotonic_ns()


def _numa_node(core: int) -> int:
    try:
        names = os.listdir(f'/sys/devices/system/cpu/cpu{core}')
    except OSError:
        return 0
    for name in names:
        if re.fullmatch(r'node\d+', name):
            return int(name[4:])
    return 0


class Thread:
    """An SPDK thread, as the lists show it."""

    def __init__(self, name: str, number: int, mask: int) -> None:
        self.name = name
        self.number = number
        self.mask = mask
        self._since = ticks()

    def describe(self) -> dict[str, Any]:
        """As ``framework_get_reactors`` shows it."""
        return {
            'name': self.name,
            'id': self.number,
            'cpumask': f'{self.mask:x}',
            'elapsed': ticks() - self._since,
        }

    def statistics(self) -> dict[str, Any]:
        """As ``thread_get_stats`` shows it."""
        return {
            'name': self.name,
            'id': self.number,
            'cpumask': f'{self.mask:x}',
            'busy': 0,
            'idle': ticks() - self._since,
            'active_pollers_count': 0,
            'timed_pollers_count': int(self.number == 1),
            'paused_pollers_count': 0,
        }


class Reactors:
    """The cores and their threads."""

    def __init__(self, mask: int) -> None:
        self.mask = mask
        self._threads: list[Thread] = []
        self._last = 0
        numbers = cores(mask)
        self.start_thread('app_thread', 1 << numbers[0])
        for index, core in enumerate(numbers):
            self.start_thread(f'nvmf_tgt_poll_group_{index:03}', 1 << core)

    def start_thread(self, name: str, mask: int) -> Thread:
        """One thread more; its number is never used again."""
        self._last += 1
        thread = Thread(name, self._last, mask)
        self._threads.append(thread)
        return thread

    def stop_thread(self, thread: Thread) -> None:
        """One thread less."""
        self._threads.remove(thread)

    def describe(self) -> dict[str, Any]:
        """As ``framework_get_reactors`` shows them."""
        times = os.times()
        pid = os.getpid()
        return {
            'tick_rate': TICK_RATE,
            'pid': pid,
            'reactors': [
                {
                    'lcore': core,
                    'numa_id': _numa_node(core),
                    'tid': pid,
                    'busy': 0,
                    'idle': 0,
                    'in_interrupt': False,
                    'irq': 0,
                    'sys': int(times.system * 100),
                    'usr': int(times.user * 100),
                    'lw_threads': [
                        thread.describe()
                        for thread in self._threads
                        if thread.mask & -thread.mask == 1 << core
                    ],
                }
                for core in cores(self.mask)
            ],
        }

    def statistics(self) -> dict[str, Any]:
        """As ``thread_get_stats`` shows them."""
        return {
            'tick_rate': TICK_RATE,
            'threads': [thread.statistics() for thread in self._threads],
        }
