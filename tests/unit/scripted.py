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

"""A target that answers what a test wrote down, under the real client."""

from collections.abc import Callable, Sequence
import contextlib
import logging
from typing import Any

import fixtures

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.rpc import pending

URL = 'unix:///spdk.sock'


class Refused(Exception):
    """The target answers with an error."""

    def __init__(self, text: str, code: int = -32602) -> None:
        super().__init__(text)
        self.code = code


class Lost(Exception):
    """It was sent, and the connection broke before the answer."""


class Away(Exception):
    """Nobody listens."""


NOT_FOUND = Refused('No such device', -19)
EXISTS = Refused('File exists')
NO_METHOD = Refused('Method not found', -32601)
IDLE = Refused(
    'Failed to configure rate limit: Resource temporarily unavailable', -11
)


# Methods that a target may be without, and is where nothing is written down.
OPTIONAL = ('nbd_', 'ublk_', 'nvmf_get_', 'nvmf_subsystem_get_')


class Script:
    """Answers by method.

    An answer is a value, an exception of this module, or a function of the
    parameters that returns or raises one. What nothing is written down for
    is a mistake of the test, but for block devices: there are none, and for
    how long the target has run: long.

    :ivar trips: for each round trip the requests in it, as (method, params)
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.trips: list[list[tuple[str, Any]]] = []

    def exchange(self, calls: Sequence[pending.Call]) -> None:
        self.trips.append(
            [(c.request.method, c.request.params) for c in calls]
        )
        for call in calls:
            self._settle(call)

    def close(self) -> None:
        pass

    def _settle(self, call: pending.Call) -> None:
        try:
            answer = self._answer(call.request.method)
            if callable(answer):
                answer = answer(call.request.params)
            if isinstance(answer, Exception):
                raise answer
        except Refused as e:
            call.answered({'error': {'code': e.code, 'message': str(e)}})
        except Lost:
            call.lost(URL, pending.Fault('hung up'))
        except Away:
            call.never_left(URL, 'nobody listens')
        else:
            call.answered({'result': answer})

    def _answer(self, method: str) -> Any:
        if method.startswith(OPTIONAL):
            return self.answers.get(method, NO_METHOD)
        if method == 'framework_get_reactors':
            return self.answers.get(method, running())
        return self.answers[method]

    @property
    def sent(self) -> list[tuple[str, Any]]:
        """Every request, in order."""
        return [request for trip in self.trips for request in trip]

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.sent]


def target(script: Script) -> spdk_target.Target:
    endpoint = rpc.Endpoint.parse(URL)
    return spdk_target.Target(rpc.Client(endpoint, script))


def running(pid: int = 1, uptime: float = 1e6) -> dict[str, Any]:
    """The cores of a target that has run for so many seconds."""
    thread = {'name': 'app_thread', 'id': 1, 'elapsed': int(uptime * 1e9)}
    return {
        'tick_rate': 1_000_000_000,
        'pid': pid,
        'reactors': [{'lcore': 0, 'lw_threads': [thread]}],
    }


def store(name: str = 'P', **values: Any) -> dict[str, Any]:
    """A pool of 100 GiB, as SPDK describes it."""
    return {
        'uuid': f'uuid-of-{name}',
        'name': name,
        'base_bdev': f'base-of-{name}',
        'total_data_clusters': 25600,
        'free_clusters': 25600,
        'block_size': 4096,
        'cluster_size': 4 * 1024**2,
        **values,
    }


def bdev(name: str = 'B', product: str = 'AIO disk', **values: Any) -> Any:
    """A list of one bdev, as SPDK describes it."""
    return [
        {
            'name': name,
            'aliases': [],
            'product_name': product,
            'block_size': 4096,
            'num_blocks': 262144,
            'assigned_rate_limits': {},
            'claimed': False,
            'supported_io_types': {'read': True, 'write': True, 'unmap': True},
            'driver_specific': {},
            **values,
        }
    ]


def lvol(path: str = 'P/volume-1', gib: int = 1, **values: Any) -> Any:
    """A list of one lvol; ``values`` of its driver or of the bdev."""
    of_lvol = {
        'lvol_store_uuid': 'uuid-of-P',
        'base_bdev': 'base-of-P',
        'thin_provision': False,
        'num_allocated_clusters': 256,
        'snapshot': False,
        'clone': 'base_snapshot' in values,
    }
    keys = (*of_lvol, 'base_snapshot', 'clones')
    of_lvol |= {k: v for k, v in values.items() if k in keys}
    return bdev(
        name=f'bdev-of-{path}',
        product='Logical Volume',
        aliases=[path],
        num_blocks=gib * 262144,
        driver_specific={'lvol': of_lvol},
        **{k: v for k, v in values.items() if k not in keys},
    )


def controller(
    name: str = 'volume-1-rw',
    bdev: str | None = 'bdev-of-P/volume-1',
    guests: int = 0,
    **block: Any,
) -> Any:
    """A list of one vhost-user-blk controller."""
    return [
        {
            'ctrlr': name,
            'cpumask': '0x1',
            'socket': f'/vhost/{name}',
            'sessions': [{'id': n, 'started': True} for n in range(guests)],
            'backend_specific': {
                'block': {'readonly': False, 'bdev': bdev, **block}
            },
        }
    ]


def in_turn(*answers: Any) -> Callable[[Any], Any]:
    """One answer after another; the last one stays."""
    left = list(answers)

    def answer(params: Any) -> Any:
        now = left.pop(0) if len(left) > 1 else left[0]
        return now(params) if callable(now) else now

    return answer


def named(answers: dict[str, Any]) -> Callable[[Any], Any]:
    """Answers look-ups by name; what is not listed is not found."""

    def answer(params: Any) -> Any:
        found = answers.get(params['name'], NOT_FOUND)
        return found(params) if callable(found) else found

    return answer


class Logged(fixtures.Fixture):
    """What this package logs.

    :ivar records: (level name, text), in order
    """

    def _setUp(self) -> None:
        self.records: list[tuple[str, str]] = []
        handler = logging.Handler()
        handler.emit = self._emit  # type: ignore[method-assign]
        logger = logging.getLogger('cinder_spdk_vhost')
        level, propagate = logger.level, logger.propagate
        logger.propagate = False
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        self.addCleanup(setattr, logger, 'propagate', propagate)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(logger.removeHandler, handler)

    def _emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(AttributeError):
            self.records.append((record.levelname, record.getMessage()))

    def at(self, *levels: str) -> list[str]:
        return [text for level, text in self.records if level in levels]
