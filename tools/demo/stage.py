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
        try:
            stores = self.rpc.call('bdev_lvol_get_lvstores')
        except OSError as e:
            raise ConnectionError(f'{self.url}: {e.strerror or e}') from e
        there = [store['name'] for store in stores]
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
    stage = Stage(rpc_url, pool)
    status = 1
    leave_directory = False
    try:
        stage.set_up()
        stage.play(keep)
        if keep:
            stage.keep()
            leave_directory = True
        status = 0
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
    except Exception as e:
        print(f'\n{type(e).__name__}: {e}', file=sys.stderr)
        print(f'logs are left in {stage.directory}', file=sys.stderr)
        leave_directory = True
    finally:
        kept = keep and status == 0
        stage.clear(kept)
        stage.account.table()
        if json_file:
            stage.account.write(json_file)
        if not leave_directory:
            shutil.rmtree(stage.directory)
    if kept:
        stage.how_to_talk()
    return status


class Stage:
    """Target, tap and services, in a directory of their own.

    :param rpc_url: a target that runs already; None is one of our own
    :param pool: the lvstore to use there
    """

    def __init__(self, rpc_url: str | None, pool: str | None) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='cinder-spdk-'))
        self.account = Account()
        self._target: target_fixture.Target
        if rpc_url:
            self._target = NamedTarget(rpc_url, pool)
        else:
            self._target = target_fixture.EmbeddedTarget(
                self.directory / 'spdk', _POOLS
            )
        self._outlives_us = rpc_url is not None
        self._tap = Tap(
            str(self.directory / 'tap.sock'), self._target.url, hold=0.001
        )
        self._cinder = cinder_services.CinderServices(
            self.directory / 'cinder',
            [],
            # The figures shall be the steps', not the poll's beside them.
            options={'backend_stats_polling_interval': 3600},
        )

    def set_up(self) -> None:
        """Start all, each as a step of the account."""
        target, cinder = self._target, self._cinder
        with self.account.step('start the SPDK target') as step:
            target.start()
            version = target.rpc.call('spdk_get_version')['version']
            step.note(f'{version} at {target.url}')
            step.note(f'pools: {", ".join(target.pools)}')
        self._tap.start()
        cinder.backends = [_backend(self._tap.url, target.pools)]
        with self.account.step('start the Cinder services', self._tap) as step:
            cinder.start()
            step.note(f'API at {cinder.url}')

    def play(self, keep_type: bool) -> None:
        """The life of a volume."""
        volume_life = life.Life(
            self.account, self._target, self._tap, self._cinder.client()
        )
        try:
            volume_life.run(keep_type)
        except BaseException:
            if self._outlives_us:
                life.attempt(volume_life.clean_up)
            raise

    def keep(self) -> None:
        """Let the services go on without the tap, which ends with us."""
        self._cinder.backends = [
            _backend(self._target.url, self._target.pools)
        ]
        self._cinder.restart()

    def clear(self, keep: bool) -> None:
        """Stop all, or the tap alone."""
        self._tap.stop()
        if not keep:
            self._cinder.stop()
            self._target.stop()

    def how_to_talk(self) -> None:
        """Say what runs and how it is reached and stopped."""
        cinder, target = self._cinder, self._target
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
    {bin_directory}/cinder create --volume-type {life.TYPE} 1

    curl -H 'X-Auth-Token: admin:{project}' \\
        {cinder.url}/{project}/volumes/detail

To the SPDK target, JSON-RPC at {target.url}
Cinder's log: {cinder.log}

To stop and remove it:

    kill {numbers}; rm -r {self.directory}""")


def _backend(url: str, pools: list[str]) -> cinder_services.Backend:
    options = {'spdk_rpc_url': url, 'spdk_pools': ','.join(pools)}
    return cinder_services.Backend('spdk', options, pools=len(pools))
