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

"""Locks on lvols, held across every process that drives one target.

Whatever changes an lvol's mapping (its size, parent or existence) or its
exports holds that lvol's lock. Deleting a snapshot merges it into its one
clone, so it holds both.
"""

from collections.abc import Iterator
import contextlib
import threading

from cinder import coordination

_PREFIX = 'spdk-vhost-'


# What a thread holds, of which it need not wait for itself.
_held = threading.local()


@contextlib.contextmanager
def holding(*lvols: str) -> Iterator[None]:
    """Hold the locks of some lvols; taken in one order everywhere.

    Who holds one already keeps it.
    """
    mine = _held.__dict__.setdefault('lvols', set())
    with contextlib.ExitStack() as held:
        for lvol in sorted(set(lvols) - mine):
            lock = coordination.COORDINATOR.get_lock(_PREFIX + lvol)
            held.enter_context(lock)
            mine.add(lvol)
            held.callback(mine.discard, lvol)
        yield


def forget(lvol: str) -> None:
    """Remove the lock's file once the lvol is gone for good."""
    coordination.synchronized_remove(_PREFIX + lvol)
