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

"""Tests over HTTP: real Cinder services on a target, started per class."""

import contextlib
import pathlib
import time
from typing import Any, ClassVar
import uuid

from cinderclient import exceptions as cinder_exceptions
from testtools import content

from tests.fixtures import cinder_services, glance
from tests.fixtures.cinder_services import gone, settled
from tests.functional import target_case

BACKEND = 'spdk'
GIB = 1024**3


class HttpTestCase(target_case.TargetTestCase):
    """A target, a tap on the way to it, Cinder; and a clean end.

    What a test makes through :meth:`volume` and its like is removed after
    it, and then the target must hold what it held before.
    """

    native_threads: ClassVar[bool] = False
    backend_options: ClassVar[dict[str, Any]] = {}
    default_options: ClassVar[dict[str, Any]] = {}
    #: where images come from and go to
    images: ClassVar[glance.Glance | None] = None
    services: ClassVar[cinder_services.CinderServices]

    @classmethod
    def start_more(
        cls, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        options = {
            'spdk_rpc_url': cls.tap.url,
            'spdk_pools': ','.join(cls.target.pools),
            **cls.backend_options,
        }
        cls.services = cinder_services.CinderServices(
            directory / 'cinder',
            [
                cinder_services.Backend(
                    BACKEND, options, pools=len(cls.target.pools)
                )
            ],
            native_threads=cls.native_threads,
            options={
                'backend_stats_polling_interval': 3600,
                **cls.default_options,
            },
            images=cls.images,
        )
        stack.callback(cls.services.stop)
        cls.services.start()

    def setUp(self) -> None:
        super().setUp()
        self.cinder = self.services.client()
        self.before = self.target.dump()
        self.addCleanup(self._check_clean)
        self.addCleanup(self.tap.heal)
        self.addOnException(self._attach_log)

    def _attach_log(self, _: object) -> None:
        text = self.services.log.read_text(errors='replace')
        lines = [
            line
            for line in text.splitlines()
            if ' DEBUG ' not in line and ' INFO ' not in line
        ]
        self.addDetail(
            'cinder.log', content.text_content('\n'.join(lines[-60:]))
        )

    def _check_clean(self) -> None:
        self.eventually(
            lambda: self.assertEqual(self.before, self.target.dump())
        )

    def eventually(self, check: Any, seconds: float = 10) -> None:
        """Repeat an assertion until it holds, at most that long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                check()
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def type(
        self,
        qos: dict[str, str] | None = None,
        consumer: str = 'back-end',
        **extra_specs: str,
    ) -> Any:
        """A volume type of our back end, with QoS specs if any are given."""
        name = f'type-{uuid.uuid4().hex[:8]}'
        volume_type = self.cinder.volume_types.create(name)
        self.addCleanup(self.cinder.volume_types.delete, volume_type)
        volume_type.set_keys({'volume_backend_name': BACKEND, **extra_specs})
        if qos is not None:
            specs = self.cinder.qos_specs.create(
                name, {'consumer': consumer, **qos}
            )
            self.addCleanup(self.cinder.qos_specs.delete, specs, force=True)
            self.cinder.qos_specs.associate(specs, volume_type.id)
        return volume_type

    def begin_volume(self, size: int = 1, **arguments: Any) -> Any:
        """Ask for a volume, don't wait."""
        volume = self.cinder.volumes.create(size, **arguments)
        self.addCleanup(self.remove, self.cinder.volumes, volume.id)
        return volume

    def volume(self, size: int = 1, **arguments: Any) -> Any:
        """A volume that is there."""
        volume = self.begin_volume(size, **arguments)
        return settled(self.cinder.volumes, volume.id)

    def snapshot(self, volume: Any) -> Any:
        """A snapshot that is there."""
        snapshots = self.cinder.volume_snapshots
        snapshot = snapshots.create(volume.id, force=True)
        self.addCleanup(self.remove, snapshots, snapshot.id)
        return settled(snapshots, snapshot.id)

    def remove(self, manager: Any, identifier: str) -> None:
        """Delete a volume or snapshot in whatever state, if it is there."""
        with contextlib.suppress(cinder_exceptions.NotFound):
            manager.reset_state(identifier, 'error')
            manager.delete(identifier)
            gone(manager, identifier)

    def delete(self, *resources: Any) -> None:
        """Delete volumes or snapshots as a user does, one by one."""
        for resource in resources:
            resource.delete()
            gone(resource.manager, resource.id)

    def connector(self, mode: str = 'rw', **changes: Any) -> dict[str, Any]:
        """What the connector on the target's own host sends."""
        return {
            'host': 'compute',
            'ip': '127.0.0.1',
            'initiator': 'iqn.1993-08.org.debian:01:compute',
            'mode': mode,
            'multipath': False,
            'os_type': 'linux',
            'platform': 'x86_64',
            'spdk_vhost': {
                'lvstores': self.target.lvstore_uuids(),
                'version': '26.05',
                'reactors': {'0': [0]},
            },
            **changes,
        }

    def attach(
        self, volume: Any, connector: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Attach as Nova does; gives attachment id and connection info."""
        attachments = self.cinder.attachments
        connector = connector or self.connector()
        attachment = attachments.create(
            volume.id, None, str(uuid.uuid4()), connector['mode']
        )['id']
        self.addCleanup(self.detach, attachment)
        try:
            info = attachments.update(attachment, connector).connection_info
            attachments.complete(attachment)
        except cinder_exceptions.ClientException:
            self.detach(attachment)
            raise
        return attachment, info

    def detach(self, attachment: str) -> None:
        """Detach, if it is attached."""
        with contextlib.suppress(cinder_exceptions.NotFound):
            self.cinder.attachments.delete(attachment)

    def pool_of(self, volume: Any) -> str:
        return getattr(volume, 'os-vol-host-attr:host').partition('#')[2]

    def alias(self, volume: Any) -> str:
        """The volume's lvol."""
        return f'{self.pool_of(volume)}/volume-{volume.id}'

    def lvol(self, volume: Any) -> dict[str, Any]:
        """The volume as the target has it."""
        found = self.target.lvol(self.alias(volume))
        self.assertIsNotNone(found, f'{self.alias(volume)} is not there')
        assert found is not None
        return found

    def size(self, volume: Any) -> int:
        lvol = self.lvol(volume)
        return lvol['num_blocks'] * lvol['block_size']

    def controllers_of(self, volume: Any) -> dict[str, dict[str, Any]]:
        return {
            name: controller
            for name, controller in self.target.controllers().items()
            if volume.id in name
        }
