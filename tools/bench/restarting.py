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

"""How long attachments take to be back, and attaches from many threads."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sqlite3
import tempfile
import threading
import time
from typing import Any
import uuid

import cinder.db.api  # noqa: F401, its options
from oslo_config import cfg
from population import create
from progress import say

from cinder_spdk_vhost import names, rpc
from cinder_spdk_vhost.volume import attached
from tests.fixtures import cinder_services, operations
from tests.fixtures import driver as driver_fixture
from tests.fixtures import target as target_fixture

THREADS = 16
ATTACHES = 100

_POOL = {'bench': '4T'}
_HOST = 'h@spdk'
_SECONDS = 300
_TICKS = os.sysconf('SC_CLK_TCK')

CONF = cfg.CONF


class Rows:
    """Cinder's database, in a file."""

    def __init__(self, path: pathlib.Path) -> None:
        shutil.copy(cinder_services.database_template(), path)
        CONF.set_override('connection', f'sqlite:///{path}', group='database')
        CONF.set_override('sqlite_synchronous', False, group='database')
        self._database = sqlite3.connect(path, isolation_level=None)
        self._types = [self._type(None), self._type(operations.LIMITS)]

    def close(self) -> None:
        self._database.close()
        CONF.clear_override('connection', group='database')
        CONF.clear_override('sqlite_synchronous', group='database')

    def _insert(self, table: str, **values: Any) -> None:
        places = ', '.join('?' * len(values))
        self._database.execute(
            f'INSERT INTO {table} ({", ".join(values)}) '  # noqa: S608
            f'VALUES ({places})',
            tuple(values.values()),
        )

    def _type(self, qos: dict[str, str] | None) -> str:
        """A volume type; with QoS specs, if any are given."""
        specs = str(uuid.uuid4()) if qos else None
        if qos:
            self._insert(
                'quality_of_service_specs',
                id=specs,
                key='QoS_Specs_Name',
                value='limited',
                deleted=0,
            )
            for key, value in {'consumer': 'back-end', **qos}.items():
                self._insert(
                    'quality_of_service_specs',
                    id=str(uuid.uuid4()),
                    specs_id=specs,
                    key=key,
                    value=value,
                    deleted=0,
                )
        type_id = str(uuid.uuid4())
        self._insert(
            'volume_types',
            id=type_id,
            name=type_id,
            qos_specs_id=specs,
            is_public=1,
            deleted=0,
        )
        return type_id

    def attach(self, pool: str, lvstores: list[str], count: int) -> list[str]:
        """Volumes that are attached; gives their ids."""
        connector = json.dumps(driver_fixture.connector(lvstores))
        made = [str(uuid.uuid4()) for _ in range(count)]
        self._database.execute('BEGIN')
        for number, volume_id in enumerate(made):
            self._insert(
                'volumes',
                id=volume_id,
                host=f'{_HOST}#{pool}',
                size=1,
                status='in-use',
                attach_status='attached',
                volume_type_id=self._types[number % 2],
                use_quota=1,
                deleted=0,
            )
            self._insert(
                'volume_attachment',
                id=str(uuid.uuid4()),
                volume_id=volume_id,
                attach_status='attached',
                attach_mode='rw',
                connector=connector,
                deleted=0,
            )
        self._database.execute('COMMIT')
        return made


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one thing that was done; all in seconds."""

    seconds: float
    driver_cpu: float
    target_cpu: float


@dataclasses.dataclass
class _Stage:
    target: target_fixture.Target
    pool: str
    client: rpc.Client
    rows: Rows
    pid: Callable[[], int]

    def cost(self, do: Callable[[], object]) -> Cost:
        pid = self.pid()
        used = _cpu(pid)
        begin, driver = time.monotonic(), time.process_time()
        do()
        return Cost(
            time.monotonic() - begin,
            time.process_time() - driver,
            _cpu(pid) - used,
        )

    def ask(self, *requests: rpc.Request) -> None:
        for answer in self.client.gather(*requests):
            if isinstance(answer, rpc.RPCError):
                raise answer

    @contextlib.contextmanager
    def driver(self, *, restores: bool) -> Iterator[Any]:
        driver = driver_fixture.make_driver(
            self.target.url,
            spdk_pools=[self.pool],
            spdk_zeroing_pools=[self.pool],
            spdk_sweep_interval=3600,
        )
        if restores:
            driver._database = attached.Database(_HOST)
        driver_fixture.set_up(driver)
        try:
            yield driver
        finally:
            driver._restorer.stop()
            driver._janitor.stop()


def run(
    rpc_url: str | None, sizes: Sequence[int], rounds: int
) -> dict[str, Any]:
    """:param rpc_url: None starts an embedded target"""
    results: dict[str, Any] = {
        'load_before': round(os.getloadavg()[0], 2),
        'cpus': os.cpu_count(),
        'rounds': rounds,
        'restored': {},
    }
    with _stage(rpc_url) as stage:
        version = stage.target.rpc.call('spdk_get_version')['version']
        results['version'] = version
        say(version)
        results['attaches'] = _attaches(stage, rounds)
        volumes: list[str] = []
        for size in sizes:
            made = stage.rows.attach(
                stage.pool,
                stage.target.lvstore_uuids(),
                size - len(volumes),
            )
            lvols = [names.volume(volume) for volume in made]
            stage.ask(*(create(stage.pool, name) for name in lvols))
            volumes += made
            costs = [_restore(stage, size) for _ in range(rounds)]
            for cost in costs:
                say(f'{size} volumes: {_short(cost)}')
            results['restored'][str(size)] = _median(costs)
        if rpc_url:
            stage.ask(*map(_deletion, stage.target.controllers()))
    return results


def _short(cost: Cost) -> str:
    return (
        f'{cost.seconds:.2f} s, CPU {cost.driver_cpu:.2f} s, '
        f"target's {cost.target_cpu:.2f} s"
    )


def _median(costs: list[Cost]) -> dict[str, float]:
    """The round whose time is the median."""
    ordered = sorted(costs, key=lambda cost: cost.seconds)
    return dataclasses.asdict(ordered[len(ordered) // 2])


@contextlib.contextmanager
def _stage(rpc_url: str | None) -> Iterator[_Stage]:
    with contextlib.ExitStack() as stack:
        driver_fixture.start_coordination(stack)
        directory = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
        )
        rows = Rows(directory / 'cinder.sqlite')
        stack.callback(rows.close)
        target: target_fixture.Target
        if rpc_url:
            target = target_fixture.RealTarget(rpc_url, _POOL)
            found = target.rpc.call('framework_get_reactors')['pid']
            pid = lambda: found  # noqa: E731
        else:
            embedded = target_fixture.EmbeddedTarget(directory / 't', _POOL)
            target, pid = embedded, lambda: embedded.pid
        stack.enter_context(target)
        client = stack.enter_context(
            rpc.open_client(rpc.Endpoint.parse(target.url))
        )
        yield _Stage(target, target.pools[0], client, rows, pid)


def _restore(stage: _Stage, size: int) -> Cost:
    """Take all away, and have the driver put it back."""
    with contextlib.ExitStack() as stack:
        if stage.target.restartable:
            driver = stack.enter_context(stage.driver(restores=True))
            _settle(driver)
            # Since it answers, as start() returns then.
            stage.target.restart(kill=True)
            cost = stage.cost(lambda: _settle(driver))
        else:
            stage.ask(*map(_deletion, stage.target.controllers()))
            cost = stage.cost(
                lambda: _settle(
                    stack.enter_context(stage.driver(restores=True))
                )
            )
    found = len(stage.target.controllers())
    if found != size:
        raise RuntimeError(f'{found} of {size} controllers are back')
    return cost


def _settle(driver: Any) -> None:
    if not driver._restorer.wait_idle(_SECONDS):
        raise TimeoutError('not restored')


def _deletion(controller: str) -> rpc.Request:
    return rpc.Request('vhost_delete_controller', {'ctrlr': controller})


def _attaches(stage: _Stage, rounds: int) -> dict[str, Any]:
    """One after another, and from many threads, in turn."""
    connector = driver_fixture.connector(stage.target.lvstore_uuids())
    volumes = [driver_fixture.volume(stage.pool) for _ in range(ATTACHES)]
    lvols = [names.volume(volume.id) for volume in volumes]
    stage.ask(*(create(stage.pool, name) for name in lvols))
    ways: dict[str, list[Cost]] = {'one by one': [], f'{THREADS} threads': []}
    with stage.driver(restores=False) as driver:
        attach = driver.initialize_connection
        for _ in range(rounds):
            for (name, costs), threads in zip(
                ways.items(), (1, THREADS), strict=True
            ):
                costs.append(
                    stage.cost(
                        lambda t=threads: _all(attach, volumes, connector, t)
                    )
                )
                say(f'{ATTACHES} attaches, {name}: {_short(costs[-1])}')
                _all(driver.terminate_connection, volumes, connector, THREADS)
        for volume in volumes:
            driver.delete_volume(volume)
    medians = {name: _median(costs) for name, costs in ways.items()}
    single, many = (at['seconds'] for at in medians.values())
    return {
        'ways': medians,
        'ratio': single / many,
        'ratios': [
            a.seconds / b.seconds for a, b in zip(*ways.values(), strict=True)
        ],
    }


def _all(
    do: Callable[..., object],
    volumes: list[Any],
    connector: dict[str, Any],
    count: int,
) -> None:
    todo = iter(volumes)
    failed: list[Exception] = []

    def work() -> None:
        try:
            for volume in todo:  # a list's iterator is safe to share
                do(volume, connector)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has had."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / _TICKS
