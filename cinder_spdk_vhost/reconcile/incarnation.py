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

"""Whether a target is still the one that it was.

Everything but its lvols is gone when an SPDK target ends: controllers,
subsystems, limits. ``framework_get_reactors`` tells its process and for how
long it has run, so a look costs nothing and leaves nothing (facts read off
SPDK v26.05). In a container the process always has the same number, and no
two hosts' clocks need agree: only what went by on this one's counts.
"""

from collections.abc import Callable
import dataclasses
import threading
import time

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.spdk import app


@dataclasses.dataclass(frozen=True)
class Sighting:
    """A target as it was seen once.

    :ivar process: what it said of itself
    :ivar asked: when it was asked, on this host's monotonic clock, seconds
    :ivar answered: when the answer was here
    """

    process: app.Process
    asked: float
    answered: float

    def started_again(self, before: 'Sighting') -> bool:
        """Whether the target was started between two sightings.

        If it was, it has run no longer than what went by since the first;
        if not, for so much longer as it had run by then. The middle between
        the two tells them apart, however wrong the clocks go.
        """
        if self.process.pid != before.process.pid:
            return True
        since = self.answered - before.asked
        return self.process.uptime < since + before.process.uptime / 2


class Watch:
    """Counts the incarnations of one target.

    A target that was never seen before counts as another one: nobody knows
    what happened to it while nobody looked.

    :param changed: told of each new one; must not wait for anything
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self._lock = threading.Lock()
        self._last: Sighting | None = None
        self._count = 0

    @property
    def count(self) -> int:
        """How many there were so far."""
        return self._count

    @staticmethod
    def look() -> rpc.Request[app.Process]:
        """What to send along with whatever else is asked."""
        return app.get_process()

    def saw(self, process: app.Process, asked: float) -> None:
        """Take in an answer.

        :param asked: when it was asked, on the monotonic clock
        """
        new = Sighting(process, asked, time.monotonic())
        with self._lock:
            last = self._last
            if last is not None and new.asked < last.asked:
                return  # overtaken by a later look
            self._last = new
            if last is not None and not new.started_again(last):
                return
            self._count += 1
        self.changed()
