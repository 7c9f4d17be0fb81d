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

import ddt
from hypothesis import given
from hypothesis import strategies as st
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.export import portals


@ddt.ddt
class Portals(base.BaseTestCase):
    @ddt.data(
        ('tcp://192.0.2.5:4420', 'tcp', 'IPv4', '192.0.2.5', 4420),
        ('rdma://[2001:db8::5]:1', 'rdma', 'IPv6', '2001:db8::5', 1),
        ('tcp://127.0.0.1:65535', 'tcp', 'IPv4', '127.0.0.1', 65535),
        ('tcp://[::1]:4420', 'tcp', 'IPv6', '::1', 4420),
    )
    @ddt.unpack
    def test_good(self, text, transport, family, address, port) -> None:
        [portal] = portals.parse([text])
        self.assertEqual(portals.Portal(transport, address, port), portal)
        self.assertEqual(family, portal.family)

    def test_order(self) -> None:
        texts = ['tcp://192.0.2.5:2', 'tcp://192.0.2.5:1', 'rdma://[::1]:3']
        self.assertEqual(
            [2, 1, 3], [portal.port for portal in portals.parse(texts)]
        )
        self.assertEqual((), portals.parse([]))

    @ddt.data(
        ('', 'no portal'),
        ('192.0.2.5:4420', 'no portal'),
        ('tcp://192.0.2.5', 'no portal'),
        ('tcp://192.0.2.5:', 'no portal'),
        ('tcp://2001:db8::5:4420', 'no portal'),
        ('TCP://192.0.2.5:4420', 'no portal'),
        ('fc://192.0.2.5:4420', 'no portal'),
        ('tcp://192.0.2.5:4420/', 'no portal'),
        ('tcp://192.0.2.5:4420\n', 'no portal'),
        (' tcp://192.0.2.5:4420', 'no portal'),
        ('tcp://u@192.0.2.5:4420', 'no IP address'),
        ('tcp://storage-1:4420', 'names are not looked up'),
        ('tcp://localhost:4420', 'names are not looked up'),
        ('tcp://192.0.2.05:4420', 'no IP address'),
        ('tcp://192.0.2:4420', 'no IP address'),
        ('tcp://192.0.2.256:4420', 'no IP address'),
        ('tcp://:4420', 'no IP address'),
        ('tcp://[]:4420', 'no IP address'),
        ('tcp://[192.0.2.5]:4420', 'in brackets'),
        ('tcp://[2001:DB8::5]:4420', 'is 2001:db8::5'),
        ('tcp://[2001:db8:0:0:0:0:0:5]:4420', 'is 2001:db8::5'),
        ('tcp://0.0.0.0:4420', 'cannot connect to 0.0.0.0'),
        ('tcp://[::]:4420', 'cannot connect to ::'),
        ('tcp://224.0.0.1:4420', 'cannot connect'),
        ('tcp://[fe80::1%eth0]:4420', 'cannot connect'),
        ('tcp://[fe80::1]:4420', 'unique on the network'),
        ('tcp://[::ffff:c000:205]:4420', 'unique on the network'),
        ('tcp://192.0.2.5:0', '1 to 65535'),
        ('tcp://192.0.2.5:65536', '1 to 65535'),
        ('tcp://192.0.2.5:04420', '1 to 65535'),
        ('tcp://192.0.2.5:٤٤٢٠', 'no portal'),
    )
    @ddt.unpack
    def test_bad(self, text: str, why: str) -> None:
        said = str(
            self.assertRaises(exceptions.Conflict, portals.parse, [text])
        )
        self.assertIn(f'"{text}"', said)
        self.assertIn(why, said)
        self.assertIn('accepted', said)

    def test_twice(self) -> None:
        text = 'tcp://192.0.2.5:4420'
        said = str(
            self.assertRaises(exceptions.Conflict, portals.parse, [text, text])
        )
        self.assertIn(f'"{text}" is there twice', said)
        portals.parse([text, 'rdma://192.0.2.5:4420', 'tcp://192.0.2.5:4421'])

    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_any_address(self, address, port: int) -> None:
        host = f'[{address}]' if address.version == 6 else str(address)
        text = f'tcp://{host}:{port}'
        try:
            [portal] = portals.parse([text])
        except exceptions.Conflict as e:
            self.assertIn(text, str(e))
        else:
            self.assertEqual(
                (str(address), port), (portal.address, portal.port)
            )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        self.assertRaises(exceptions.Conflict, portals.parse, [text])
