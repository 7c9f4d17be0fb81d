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

"""A target without its socket, for tests of the books."""

import shutil
from typing import Any

from cinder_spdk_vhost.embedded import errors, lvols, outcome, pools, rpc
from cinder_spdk_vhost.embedded import target as targets
from tests.conformance import process

CLUSTER_MIB = 4


class Refused(Exception):
    """The method answered with an error."""


class Books:
    """A target whose methods are called directly."""

    def __init__(self, pool_size: int, kind: str = pools.AIO) -> None:
        self._directory = process.temporary_directory()
        self._pool = pools.Pool('P', pool_size, kind)
        self.target = self._start()

    def _start(self) -> targets.Target:
        target = targets.Target(self._directory, self._directory)
        self._pool.ensure(target)
        return target

    def restart(self) -> None:
        """What is not saved is gone."""
        self.target.close()
        self.target = self._start()

    def close(self) -> None:
        """Leave nothing behind."""
        self.target.close()
        shutil.rmtree(self._directory)

    @property
    def lvstore(self) -> lvols.Lvstore:
        """The pool's store."""
        lvstore = self.target.lvstores.by_name('P')
        assert lvstore is not None
        return lvstore

    def begin(self, name: str, /, **params: Any) -> tuple[rpc.Method, Any]:
        """Begin a request as a poll does."""
        method = rpc.METHODS[name]
        return method, method.run(self.target, params or None)

    def call(self, name: str, /, **params: Any) -> Any:
        """A request in a poll of its own."""
        try:
            method, result = self.begin(name, **params)
            if isinstance(result, outcome.Deferred):
                result = method.finish(result.finish)
        except errors.RpcError as error:
            raise Refused(error.message) from error
        finally:
            self.target.save()
        return result

    def volume(self, name: str) -> lvols.Lvol:
        """A volume by its name in the pool."""
        bdev = self.target.bdevs.get(f'P/{name}')
        assert isinstance(bdev, lvols.Lvol)
        return bdev
