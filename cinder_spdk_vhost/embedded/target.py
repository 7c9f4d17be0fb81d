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

"""One embedded target: all its parts, wired together."""

import os

from cinder_spdk_vhost.embedded import (
    bdevs,
    dataplane,
    disks,
    keyring,
    lvols,
    lvstores,
    methods,
    reactors,
    rpc,
    store,
    vhost,
    volumes,
)
from cinder_spdk_vhost.embedded.nvmf import subsystems

methods.load()


class Target:
    """What the methods work on.

    :param state_dir: where it saves what survives it
    :param vhost_dir: where the sockets of vhost controllers stand
    :param core_mask: the cores that it says it runs on
    :param plane: who keeps the bytes; nobody by default
    """

    def __init__(
        self,
        state_dir: str,
        vhost_dir: str,
        core_mask: int = 1,
        plane: dataplane.DataPlane | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.plane = plane or dataplane.Books()
        self._state = store.Store(os.path.join(state_dir, 'state.sqlite'))
        self.reactors = reactors.Reactors(core_mask)
        self.bdevs = bdevs.Registry()
        self.lvstores = lvols.Lvstores()
        self.keeper = lvstores.StoreKeeper(
            self.bdevs, self.lvstores, self._state, self.plane
        )
        self.volumes = volumes.Volumes(self.bdevs, self._state, self.plane)
        self.vhost = vhost.Vhost(
            vhost_dir, self.bdevs, self.reactors, self.plane
        )
        self.nvmf = subsystems.Nvmf()
        self.keyring = keyring.Keyring()
        self.disks = disks.Disks(self.bdevs, self.plane)
        self.malloc_count = 0
        self.methods = tuple(rpc.METHODS)

    def save(self) -> None:
        """Make all that was done so far last."""
        self._state.commit()

    def close(self) -> None:
        """Take the sockets away and save."""
        self.vhost.close()
        self._state.close()
