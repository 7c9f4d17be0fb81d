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

"""How long operations take."""

from collections.abc import Callable, Sequence
import math
import statistics
import time
from typing import Any

from cinder_spdk_vhost.operations import janitor
from tests.fixtures import operations


class Timer:
    """Measures each operation; for the ``do`` of the operations' lives.

    The driver's background work waits until an operation is over, and the
    next one waits for it.

    :param copying: seconds that the driver has waited for copies so far
    :ivar seconds: by operation, in the order of the calls
    :ivar without_copies: the same less the waiting for copies
    """

    def __init__(
        self,
        worker: janitor.Janitor | None = None,
        copying: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.without_copies: dict[str, list[float]] = {}
        self._copying = copying
        self._background = operations.Background(worker)

    def __call__(
        self, name: str, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        self._background.finish()
        with self._background.held():
            copied = self._copying()
            begin = time.perf_counter()
            result = function(*arguments)
            took = time.perf_counter() - begin
            copied = self._copying() - copied
        self._background.finish()
        self.seconds.setdefault(name, []).append(took)
        self.without_copies.setdefault(name, []).append(took - copied)
        return result

    def summary(self, name: str) -> dict[str, Any]:
        """Median and 95th percentile (nearest rank) in milliseconds."""
        ordered = sorted(self.seconds[name])
        rank = math.ceil(0.95 * len(ordered)) - 1
        return {
            'median_ms': _milliseconds(ordered),
            'p95_ms': round(ordered[rank] * 1000, 2),
            'median_without_copies_ms': _milliseconds(
                self.without_copies[name]
            ),
            'repetitions': len(ordered),
        }


def _milliseconds(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 2)
