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

"""What in a chain of snapshots must stay while something works on it.

SPDK does not keep two operations on one chain apart. Measured on v26.05:
deleting a snapshot while its clone is being deleted ends the target with a
segmentation fault, and deleting one while a clone of it is snapshotted or
inflated answers "busy" and hides the lvol, with its clusters, until the
target restarts. A lock would make minutes of copying or clearing stand in
the way of everything else on the chain; a pin only keeps others from being
deleted.
"""

import collections
from collections.abc import Iterator
import contextlib
import threading

from cinder_spdk_vhost import exceptions


class Pins:
    """Pins on lvols, by name, in this process.

    A back end is driven by one process, so that is enough.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pinned: collections.Counter[str] = collections.Counter()
        self._going: set[str] = set()

    @contextlib.contextmanager
    def pinning(self, *names: str | None) -> Iterator[None]:
        """Keep lvols from being deleted; waits for deletions under way.

        :param names: those that are None are left out
        """
        wanted = [name for name in names if name is not None]
        with self._changed:
            self._changed.wait_for(lambda: self._going.isdisjoint(wanted))
            self._pinned.update(wanted)
        try:
            yield
        finally:
            with self._changed:
                self._pinned.subtract(wanted)
                self._pinned += collections.Counter()
                self._changed.notify_all()

    @contextlib.contextmanager
    def removing(self, *names: str) -> Iterator[None]:
        """Delete lvols, or merge into them, while nobody pins them.

        :raises Postponed: somebody does
        """
        with self._changed:
            held = [
                name
                for name in names
                if self._pinned[name] or name in self._going
            ]
            if held:
                raise exceptions.Postponed(f'{", ".join(held)} is worked on')
            self._going.update(names)
        try:
            yield
        finally:
            with self._changed:
                self._going.difference_update(names)
                self._changed.notify_all()
