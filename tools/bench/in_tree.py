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

"""Cinder's own SPDKDriver, changed as little as makes it run.

What is changed, all of it in its favour or without a choice:

- sizes go out as ``size_in_mib``: since SPDK 24.05 there is no ``size``;
- its requests go over the same client as ours, to the same socket, on one
  connection that stays; left alone, it makes an HTTP connection for each
  request, to a proxy in front of the target;
- its volumes are thin, as ours are here, so that an empty one has no data
  that would have to be copied or cleared.

It inflates every volume that it snapshots or makes from something, which
copies all data there is. How long that takes is a matter of the pool's
device, so it is kept apart.
"""

import time
from typing import Any

from cinder.volume import configuration
from cinder.volume import driver as cinder_driver
from cinder.volume.drivers import spdk
from oslo_config import cfg

from cinder_spdk_vhost import rpc

_GROUP = 'in-tree'
_OPTIONS = {'target_helper': 'spdk-nvmeof', 'target_protocol': 'nvmet_tcp'}
_MIB = 1024**2
_SECONDS = 600


class InTreeDriver(spdk.SPDKDriver):
    """:param client: what its requests go over
    :ivar inflating: seconds that it has waited for copies so far
    """

    def __init__(self, client: rpc.Client) -> None:
        conf = configuration.Configuration(
            cinder_driver.volume_opts, config_group=_GROUP
        )
        for name, value in _OPTIONS.items():
            cfg.CONF.set_override(name, value, group=_GROUP)
        super().__init__(configuration=conf, host='h@in-tree')
        self._client = client
        self.inflating = 0.0

    def _rpc_call(
        self, method: str, params: dict[str, Any] | None = None
    ) -> Any:
        if params and 'size' in params:
            params['size_in_mib'] = params.pop('size') // _MIB
        if method == 'bdev_lvol_create':
            params = {**(params or {}), 'thin_provision': True}
        begin = time.perf_counter()
        answer = self._client.call(
            rpc.Request(method, params, timeout=_SECONDS)
        )
        if method == 'bdev_lvol_inflate':
            self.inflating += time.perf_counter() - begin
        return answer
