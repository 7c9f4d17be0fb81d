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

"""Creates from many threads, against the bare client's pipeline."""

import statistics
import threading
import time
from typing import Any

from population import Population, create, new_name

from cinder_spdk_vhost import names, rpc
from tests.fixtures import driver as driver_fixture

THREADS = 32
CREATES = 200


def compare(
    driver: Any,
    client: rpc.Client,
    pool: str,
    population: Population,
    rounds: int,
) -> dict[str, Any]:
    """Both in turn, so many times; rates are those of the median round."""
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(_through_driver(driver, pool, population))
        bare.append(_pipelined(client, pool, population))
    driver_rate = CREATES / statistics.median(ours)
    bare_rate = CREATES / statistics.median(bare)
    return {
        'creates': CREATES,
        'threads': THREADS,
        'rounds': rounds,
        'driver_per_second': round(driver_rate),
        'bare_per_second': round(bare_rate),
        'ratio': round(driver_rate / bare_rate, 3),
        'driver_ms': [round(seconds * 1000, 1) for seconds in ours],
        'bare_ms': [round(seconds * 1000, 1) for seconds in bare],
    }


def _through_driver(driver: Any, pool: str, population: Population) -> float:
    volumes = [driver_fixture.volume(pool) for _ in range(CREATES)]
    todo = iter(list(volumes))
    ready = threading.Barrier(THREADS + 1)
    failed: list[Exception] = []

    def work() -> None:
        ready.wait()
        try:
            for volume in todo:  # a list's iterator is safe to share
                driver.create_volume(volume)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    if failed:
        raise failed[0]
    population.remove([names.volume(volume.id) for volume in volumes])
    return took


def _pipelined(client: rpc.Client, pool: str, population: Population) -> float:
    made = [new_name() for _ in range(CREATES)]
    requests = [create(pool, name) for name in made]
    begin = time.perf_counter()
    answers = client.gather(*requests)
    took = time.perf_counter() - begin
    for answer in answers:
        if isinstance(answer, rpc.RPCError):
            raise answer
    population.remove(made)
    return took
