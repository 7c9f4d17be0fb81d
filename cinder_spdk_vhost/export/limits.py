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

"""Rate limits that are in force before the first guest's I/O.

A bdev without an open I/O channel takes limits once; after that it refuses
every change until something opens one (spdk issue 3768). Making it a
namespace of a subsystem that nobody can reach opens one for the moment that
it takes.
"""

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.operations import flows
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, nvmf, qos

LOG = logging.getLogger(__name__)


class Setter:
    """Sets the limits of one volume, whose lock the caller holds.

    :param volume: name of its lvol
    :param path: how requests name it
    :param later: takes over what cannot be cleaned up now
    """

    def __init__(
        self,
        target: spdk_target.Target,
        volume: str,
        path: str,
        later: flows.Later,
    ) -> None:
        self._target = target
        self._later = later
        self._path = path
        self._volume = volume
        self._nqn = names.scratch_subsystem(volume)

    def set(self, wanted: qos.RateLimits) -> None:
        """One round trip where there were no limits, or a guest runs."""
        try:
            self._set(wanted)
        except rpc.TryAgain:
            LOG.debug('%s is idle and limited: opening it', self._path)
            self._open()
            try:
                self._set(wanted)
            finally:
                self._close()

    def _set(self, wanted: qos.RateLimits) -> None:
        self._target.settle(
            qos.set_limits(self._path, wanted),
            lambda: self.in_force(wanted),
        )

    def in_force(self, wanted: qos.RateLimits) -> bool:
        return self._target.ask(bdev.get_lvol(self._path)).limits == wanted

    def _open(self) -> None:
        """Make it a namespace; a leftover of an earlier try goes first."""
        create = nvmf.create_subsystem(self._nqn, max_namespaces=1)
        try:
            self._target.ask(create)
        except rpc.MethodNotFound as e:
            raise exceptions.Conflict(
                f'the limits of {self._path} cannot change while it is idle: '
                f'it takes a target with NVMe-oF, or a guest that runs'
            ) from e
        except rpc.RPCError:
            self._close()
            self._target.ask(create)
        try:
            self._target.ask(nvmf.add_namespace(self._nqn, self._path))
        except rpc.RPCError:
            self._close()
            raise

    def _close(self) -> None:
        """Give the claim back; while it is held no controller is made."""
        try:
            self._delete_subsystem()
        except rpc.RPCError as e:
            LOG.warning('%s is left for later: %s', self._nqn, e)
            self._later(f'create {self._nqn}', self._delete_subsystem)

    def _delete_subsystem(self) -> None:
        release(self._target, self._volume)


def release(target: spdk_target.Target, volume: str) -> None:
    """Give back the claim that an interrupted setting of limits left.

    The caller holds the volume's lock, so no setting is under way.
    """
    delete = nvmf.delete_subsystem(names.scratch_subsystem(volume))
    try:
        try:
            target.ask(delete)
        except rpc.OutcomeUnknown:
            # Deleting what is gone is refused: as good as a look.
            target.ask(delete)
    except (rpc.InvalidParams, rpc.MethodNotFound) as e:
        LOG.debug('%s has no scratch subsystem: %s', volume, e)
