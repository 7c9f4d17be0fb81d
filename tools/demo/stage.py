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

"""The scenery: target, tap and services come up, and go again."""

import pathlib
import shutil
import sys
import tempfile

from account import Account
import life

from tests.fixtures import cinder_services
from tests.fixtures import target as target_fixture
from tests.fixtures.tap import Tap

_POOLS = {'pool-a': '100G', 'pool-b': '100G'}


class NamedTarget(target_fixture.Target):
    """A target that somebody else runs, with the pools that it has.

    :param pool: the lvstore to use; None is every one
    """

    def __init__(self, url: str, pool: str | None) -> None:
        super().__init__(url)
        self._pool = pool

    def start(self) -> None:
        """Look whether it is there."""
        there = [s['name'] for s in self.rpc.call('bdev_lvol_get_lvstores')]
        self.pools = [n for n in there if self._pool in (None, n)]
        if not self.pools:
            raise LookupError(
                f'{self.url} has no lvstore {self._pool or ""}; it has: '
                f'{", ".join(there) or "none"}'
            )

    def stop(self) -> None:
        """It is not ours."""


def perform(
    rpc_url: str | None,
    pool: str | None,
    keep: bool,
    json_file: pathlib.Path | None,
) -> int:
    """Run the demo; gives the exit status."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix='cinder-spdk-'))
    account = Account()
    target: target_fixture.Target
    if rpc_url:
        target = NamedTarget(rpc_url, pool)
    else:
        target = target_fixture.EmbeddedTarget(directory / 'spdk', _POOLS)
    tap = Tap(str(directory / 'tap.sock'), target.url, hold=0.001)
    cinder = cinder_services.CinderServices(
        directory / 'cinder',
        [],
        options={
            # The figures shall be the steps', not the poll's beside them.
            'backend_stats_polling_interval': 3600,
        },
    )
    ok = kept = False
    try:
        with account.step('start the SPDK target') as step:
            target.start()
            version = target.rpc.call('spdk_get_version')['version']
            step.note(f'{version} at {target.url}')
            step.note(f'pools: {", ".join(target.pools)}')
        tap.start()
        cinder.backends = [_backend(tap.url, target.pools)]
        with account.step('start the Cinder services', tap) as step:
            cinder.start()
            step.note(f'API at {cinder.url}')
        with life.Life(account, target, tap, cinder.client()) as volume_life:
            volume_life.run(keep)
        ok = True
        if keep:
            # Without the tap, which ends with this process.
            cinder.backends = [_backend(target.url, target.pools)]
            cinder.restart()
            kept = True
    except Exception as e:
        print(f'\n{type(e).__name__}: {e}', file=sys.stderr)
        print(f'logs are left in {directory}', file=sys.stderr)
    finally:
        if not kept:
            cinder.stop()
            tap.stop()
            target.stop()
        account.table()
        if json_file:
            account.write(json_file)
    if kept:
        tap.stop()
        _how_to_talk(target, cinder, directory)
    elif ok:
        shutil.rmtree(directory)
    return 0 if ok else 1


def _backend(url: str, pools: list[str]) -> cinder_services.Backend:
    options = {'spdk_rpc_url': url, 'spdk_pools': ','.join(pools)}
    return cinder_services.Backend('spdk', options, pools=len(pools))


def _how_to_talk(
    target: target_fixture.Target,
    cinder: cinder_services.CinderServices,
    directory: pathlib.Path,
) -> None:
    project = cinder_services.PROJECT
    processes = [cinder.pid]
    if isinstance(target, target_fixture.EmbeddedTarget):
        processes.append(target.pid)
    numbers = ' '.join(map(str, processes))
    bin_directory = pathlib.Path(sys.executable).parent
    print(f"""
Still running. To talk to Cinder:

    export OS_AUTH_TYPE=noauth OS_USER_ID=admin OS_PROJECT_ID={project}
    export CINDER_ENDPOINT={cinder.url} OS_VOLUME_API_VERSION=3.71
    {bin_directory}/cinder --os-endpoint $CINDER_ENDPOINT create \\
        --volume-type {life.TYPE} 1

    curl -H 'X-Auth-Token: admin:{project}' \\
        {cinder.url}/{project}/volumes/detail

To the SPDK target, JSON-RPC at {target.url}
Cinder's log: {cinder.log}

To stop and remove it:

    kill {numbers}; rm -r {directory}""")
