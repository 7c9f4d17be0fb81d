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

"""vhost-user controllers: sockets that QEMU connects a guest's disk to."""

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request


@dataclasses.dataclass(frozen=True)
class Controller:
    """One vhost-user-blk controller.

    :ivar socket: its path on the target's host
    :ivar bdev: name of the bdev behind it; None once that was deleted
    :ivar sessions: how many guests are connected, or about to be
    """

    name: str
    socket: str
    bdev: str | None
    readonly: bool
    sessions: int


def _parse(result: list[dict[str, Any]]) -> Controller:
    data = result[0]
    block = data['backend_specific'].get('block', {})
    return Controller(
        name=data['ctrlr'],
        socket=data['socket'],
        bdev=block.get('bdev'),
        readonly=block.get('readonly', False),
        sessions=len(data['sessions']),
    )


def get(name: str) -> Request[Controller]:
    """Look one up. NotFound where there is none."""
    return Request(
        'vhost_get_controllers', {'name': name}, mutates=False, parse=_parse
    )


def create_blk(name: str, bdev: str, *, readonly: bool) -> Request[Any]:
    """Make a controller: the socket listens when the answer is here.

    SPDK ignores parameters of this method that it does not know and checks
    neither the name's characters nor its length.
    """
    return Request(
        'vhost_create_blk_controller',
        {'ctrlr': name, 'dev_name': bdev, 'readonly': readonly},
    )


def delete(name: str) -> Request[Any]:
    """Delete a controller.

    With a guest connected there is no answer until the guest has left:
    look at the sessions first.
    """
    return Request('vhost_delete_controller', {'ctrlr': name})
