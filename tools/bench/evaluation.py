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

"""The whole evaluation, on one target; gives plain figures."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import tempfile
import time
from typing import Any

import concurrency
import in_tree
from population import Population
from progress import say
import timing

from cinder_spdk_vhost import rpc
from tests.fixtures import driver as driver_fixture
from tests.fixtures import operations
from tests.fixtures import target as target_fixture
from tests.fixtures.tap import Tap

MIN_RATIO = 0.25
_POOL = {'bench': '200G'}
# The sweep lists the store once in this many seconds; it is no operation.
_SWEEP_SECONDS = 24 * 3600


@dataclasses.dataclass(frozen=True)
class _Effort:
    """:ivar in_tree_seconds: at one size; after that its repetitions end"""

    repetitions: int
    counted: int
    rounds: int
    in_tree_seconds: float


_FULL = _Effort(repetitions=20, counted=3, rounds=7, in_tree_seconds=120)
_QUICK = _Effort(repetitions=3, counted=2, rounds=3, in_tree_seconds=3)


@dataclasses.dataclass(frozen=True)
class _Stage:
    """What the measurements are made with.

    :ivar tap: on the way of the ``counted`` drivers; the ``timed`` ones
        talk to the target themselves
    :ivar client: for everything that is not measured, and the bare rate
    """

    target: target_fixture.Target
    pool: str
    tap: Tap
    client: rpc.Client
    counted: Any
    timed: Any
    counted_in_tree: Any
    timed_in_tree: Any


def run(
    rpc_url: str | None, sizes: Sequence[int], *, quick: bool
) -> dict[str, Any]:
    """:param rpc_url: None starts an embedded target"""
    effort = _QUICK if quick else _FULL
    results: dict[str, Any] = {
        'date': datetime.datetime.now(datetime.UTC).isoformat(
            timespec='minutes'
        ),
        'load_before': round(os.getloadavg()[0], 2),
        'target': {'kind': 'spdk' if rpc_url else 'embedded'},
        'host': _host(),
        'sizes': list(sizes),
        'operations': {},
        'in_tree': {},
        'concurrency': {},
    }
    with _stage(rpc_url) as stage:
        version = stage.target.rpc.call('spdk_get_version')['version']
        results['target']['version'] = version
        say(f'{version} ({results["target"]["kind"]})')
        population = Population(stage.client, stage.pool)
        for size in sizes:
            population.grow_to(size)
            _at_one_size(stage, population, size, effort, results)
        population.clear()
    results['failures'] = _failures(results)
    return results


def _host() -> dict[str, Any]:
    return {
        'cpus': os.cpu_count(),
        'machine': platform.machine(),
        'python': platform.python_version(),
        'cinder': importlib.metadata.version('cinder'),
    }


@contextlib.contextmanager
def _stage(rpc_url: str | None) -> Iterator[_Stage]:
    with contextlib.ExitStack() as stack:
        driver_fixture.start_coordination(stack)
        directory = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))
        )
        target: target_fixture.Target
        if rpc_url:
            target = target_fixture.RealTarget(rpc_url, _POOL)
        else:
            target = target_fixture.EmbeddedTarget(directory / 't', _POOL)
        stack.enter_context(target)
        pool = target.pools[0]
        tap = stack.enter_context(
            Tap(str(directory / 'tap.sock'), target.url, hold=0.001)
        )
        client, tapped = (
            stack.enter_context(rpc.open_client(rpc.Endpoint.parse(url)))
            for url in (target.url, tap.url)
        )
        drivers = [
            driver_fixture.make_driver(
                url,
                spdk_pools=[pool],
                spdk_zeroing_pools=[pool],
                spdk_sweep_interval=_SWEEP_SECONDS,
            )
            for url in (tap.url, target.url)
        ]
        for driver in drivers:
            driver_fixture.set_up(driver)
            stack.callback(driver._janitor.stop)
            stack.callback(driver._restorer.stop)
        yield _Stage(
            target,
            pool,
            tap,
            client,
            *drivers,
            in_tree.InTreeDriver(tapped),
            in_tree.InTreeDriver(client),
        )


def _at_one_size(
    stage: _Stage,
    population: Population,
    size: int,
    effort: _Effort,
    results: dict[str, Any],
) -> None:
    lvstores = stage.target.lvstore_uuids()
    say(f'{size} volumes: counting round trips')
    counter = operations.Counter(stage.tap, stage.counted._janitor)
    for _ in range(effort.counted):
        operations.volume_life(stage.counted, stage.pool, counter)
        operations.attachment_life(
            stage.counted, stage.pool, lvstores, counter
        )
    in_tree_counter = operations.Counter(stage.tap)
    operations.volume_life(stage.counted_in_tree, stage.pool, in_tree_counter)

    say(f'{size} volumes: taking times')
    timer = timing.Timer(stage.timed._janitor)
    in_tree_timer = timing.Timer(copying=lambda: stage.timed_in_tree.inflating)
    spent = 0.0
    for number in range(effort.repetitions):
        operations.volume_life(stage.timed, stage.pool, timer)
        operations.attachment_life(stage.timed, stage.pool, lvstores, timer)
        # In turn, so that whatever else this host does hits both alike.
        if not number or spent < effort.in_tree_seconds:
            begin = time.monotonic()
            operations.volume_life(
                stage.timed_in_tree, stage.pool, in_tree_timer
            )
            spent += time.monotonic() - begin
        if not (number + 1) % 5:
            say(f'{number + 1} of {effort.repetitions} repetitions')

    for key, counted, timed in (
        ('operations', counter, timer),
        ('in_tree', in_tree_counter, in_tree_timer),
    ):
        for name, counts in counted.counts.items():
            results[key].setdefault(name, {})[str(size)] = {
                'round_trips': sorted({c.round_trips for c in counts}),
                'background': sorted({c.background for c in counts}),
                **timed.summary(name),
            }

    say(f'{size} volumes: creates from {concurrency.THREADS} threads')
    results['concurrency'][str(size)] = concurrency.compare(
        stage.timed, stage.client, stage.pool, population, effort.rounds
    )


def _failures(results: dict[str, Any]) -> list[str]:
    failures = []
    for name, figures in results['operations'].items():
        for what in ('round_trips', 'background'):
            seen = {n for at in figures.values() for n in at[what]}
            if len(seen) > 1:
                failures.append(
                    f'{name}: {what.replace("_", " ")} are not the same '
                    f'everywhere: {sorted(seen)}'
                )
    for size, figures in results['concurrency'].items():
        if figures['ratio'] < MIN_RATIO:
            failures.append(
                f'creates from {figures["threads"]} threads with {size} '
                f'volumes: {figures["ratio"]} of the bare client, '
                f'{MIN_RATIO} are wanted'
            )
    return failures
