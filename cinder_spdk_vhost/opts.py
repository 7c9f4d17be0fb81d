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

"""Every option of this package, one list a consumer.

``list_…_opts`` are what the ``oslo.config.opts`` entry points name, for
``oslo-config-generator``.
"""

from oslo_config import cfg

# Cinder's section of a back end; the sample shows it under this name.
SAMPLE_BACKEND = 'spdk'

volume_opts = [
    cfg.StrOpt(
        'spdk_rpc_url',
        default='unix:///var/tmp/spdk.sock',
        sample_default='unix:///var/run/spdk/spdk.sock',
        help='Where the SPDK target answers JSON-RPC: unix:///PATH, '
        'https://HOST:PORT or http://HOST:PORT (the RPC proxy that comes '
        'with SPDK, with basic authentication), or tcp://HOST:PORT (no '
        'authentication: loopback only, see spdk_rpc_allow_remote_tcp).',
    ),
    # These two are worded exactly as Cinder's own SPDK target words them:
    # oslo.config refuses one name with two definitions, and both drivers
    # may be loaded by one cinder-volume.
    cfg.StrOpt(
        'spdk_rpc_username',
        help='The NVMe target remote configuration username.',
    ),
    cfg.StrOpt(
        'spdk_rpc_password',
        help='The NVMe target remote configuration password.',
        secret=True,
    ),
    cfg.StrOpt(
        'spdk_rpc_password_file',
        help='File that holds the password, instead of spdk_rpc_password. '
        'Only its owner may be able to read it (mode 0400 or 0600).',
    ),
    cfg.FloatOpt(
        'spdk_rpc_timeout',
        default=30.0,
        min=0.1,
        max=3600.0,
        help='Seconds in which the target has to answer a request. Requests '
        'that write data before they answer (clearing deletes, decoupling) '
        'get more, by the size of the volume.',
    ),
    cfg.StrOpt(
        'spdk_rpc_ca_file',
        help='File of CA certificates that the certificate of an https:// '
        'proxy is checked with. Default: those of the system.',
    ),
    cfg.BoolOpt(
        'spdk_rpc_verify',
        default=True,
        help='Whether the certificate of an https:// proxy is checked.',
    ),
    cfg.BoolOpt(
        'spdk_rpc_allow_remote_tcp',
        default=False,
        help='Whether spdk_rpc_url may be a tcp:// address of another host. '
        "SPDK's socket has no authentication: who reaches it is as good as "
        'root on the target. Only for a network that nobody else is on.',
    ),
    cfg.ListOpt(
        'spdk_pools',
        default=[],
        help='Names of the lvstores to use as pools. Default: every lvstore '
        'of the target.',
    ),
    cfg.ListOpt(
        'spdk_nvmf_portals',
        default=[],
        sample_default='tcp://192.0.2.5:4420, tcp://[2001:db8::5]:4420',
        help='Where the target listens for NVMe-oF: tcp://ADDRESS:PORT or '
        'rdma://ADDRESS:PORT, with addresses of its host, IPv6 ones in '
        'brackets. The driver makes the listeners. Hosts that take several '
        'paths get all of them, others the first. Default: none, so only '
        "the target's own host can attach volumes.",
    ),
    cfg.StrOpt(
        'spdk_provisioning',
        default='auto',
        choices=[
            ('auto', 'thin in pools that read zeros after unmap, else thick'),
            ('thin', 'clusters are allocated when they are first written'),
            ('thick', 'all clusters are allocated when a volume is made'),
        ],
        help='How volumes are provisioned whose type does not say it with '
        'the extra spec provisioning:type (thin or thick).',
    ),
    cfg.ListOpt(
        'spdk_zeroing_pools',
        default=[],
        help='Pools whose base device reads zeros after unmap, as NVMe '
        'devices do whose DLFEAT says so. Only these can have thin volumes: '
        "elsewhere blocks that a guest discards would be another tenant's "
        'to read. Pools on malloc bdevs, and on files made with fallocate, '
        'need not be named.',
    ),
    cfg.StrOpt(
        'spdk_clear_method',
        default='auto',
        choices=[
            ('auto', 'unmap in pools that read zeros after unmap, else zeros'),
            ('unmap', 'unmap the clusters; only safe where that zeroes them'),
            ('write_zeroes', 'write zeros over the clusters'),
        ],
        help="How a volume's clusters are cleared when it is deleted. It is "
        'set when a volume is created; a change does not reach older ones.',
    ),
    cfg.IntOpt(
        'spdk_max_chain_depth',
        default=8,
        min=1,
        max=64,
        help='How many snapshots a volume may stand on. Reads slow down '
        'with each (to less than half at 8, to a quarter at 64); beyond '
        'this many the data is copied up in the background and the volume '
        'stands alone again.',
    ),
    cfg.IntOpt(
        'spdk_sweep_interval',
        default=300,
        min=1,
        help='Seconds between two looks for what could not be deleted when '
        'its user deleted it.',
    ),
]


def list_volume_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Options of a back end's section in cinder.conf."""
    return [(SAMPLE_BACKEND, volume_opts)]
