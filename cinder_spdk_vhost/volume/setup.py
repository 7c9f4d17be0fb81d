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

"""From a back end's options to a target that can be used."""

import os
import stat
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.export import portals
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import app

LOG = logging.getLogger(__name__)

# Since then sizes of lvols are given in MiB.
OLDEST = (24, 5)

# What the driver calls.
REQUIRED_METHODS = frozenset(
    {
        'bdev_get_bdevs',
        'bdev_lvol_clone',
        'bdev_lvol_create',
        'bdev_lvol_decouple_parent',
        'bdev_lvol_delete',
        'bdev_lvol_get_lvols',
        'bdev_lvol_get_lvstores',
        'bdev_lvol_inflate',
        'bdev_lvol_rename',
        'bdev_lvol_resize',
        'bdev_lvol_set_parent',
        'bdev_lvol_snapshot',
        'bdev_set_qos_limit',
        'bdev_wait_for_examine',
        'framework_get_reactors',
        'vhost_create_blk_controller',
        'vhost_delete_controller',
        'vhost_get_controllers',
    }
)

# Without these there are no block devices, for image copies and the like. An
# SPDK that lacks ublk has NBD.
BLOCK_METHODS = frozenset(
    {
        'nbd_get_disks',
        'nbd_start_disk',
        'nbd_stop_disk',
        'ublk_get_disks',
        'ublk_start_disk',
        'ublk_stop_disk',
    }
)


# What limits take that are to change while nobody has the volume open.
LIMITING_METHODS = frozenset(
    {
        'nvmf_create_subsystem',
        'nvmf_delete_subsystem',
        'nvmf_subsystem_add_ns',
    }
)

# What it takes where spdk_nvmf_portals is set.
NVMEOF_METHODS = LIMITING_METHODS | {
    'nvmf_create_transport',
    'nvmf_get_subsystems',
    'nvmf_get_transports',
    'nvmf_subsystem_add_host',
    'nvmf_subsystem_add_listener',
    'nvmf_subsystem_get_controllers',
    'nvmf_subsystem_remove_host',
    'nvmf_subsystem_remove_ns',
}

# What it can do without.
OPTIONAL_METHODS = BLOCK_METHODS | NVMEOF_METHODS


class BadConfiguration(Exception):
    """An option, or a target, that cannot work as it is."""


def open_target(conf: Any) -> spdk_target.Target:
    """Connects with the first request, so the target may be away still.

    :param conf: the back end's section
    :raises BadConfiguration: names the option and what it takes
    """
    try:
        endpoint = rpc.Endpoint.parse(
            conf.spdk_rpc_url,
            username=conf.spdk_rpc_username,
            password=_password(conf),
            ca_file=conf.spdk_rpc_ca_file,
            verify=conf.spdk_rpc_verify,
            allow_remote_tcp=conf.spdk_rpc_allow_remote_tcp,
        )
    except rpc.InvalidEndpoint as e:
        raise BadConfiguration(f'spdk_rpc_url: {e}') from None
    if endpoint.cleartext_credentials:
        LOG.warning(
            'The password for %s travels unencrypted: use https://', endpoint
        )
    client = rpc.open_client(endpoint, timeout=conf.spdk_rpc_timeout)
    return spdk_target.Target(client)


def _password(conf: Any) -> str | None:
    path = conf.spdk_rpc_password_file
    if not path:
        return conf.spdk_rpc_password
    if conf.spdk_rpc_password:
        raise BadConfiguration(
            'spdk_rpc_password and spdk_rpc_password_file exclude each '
            'other; give one of them'
        )
    try:
        with open(path, encoding='utf-8') as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise BadConfiguration(
                    f'spdk_rpc_password_file {path} has mode {mode:04o}, so '
                    f'others can read it; 0400 and 0600 are accepted'
                )
            password = file.read().rstrip('\r\n')
    except UnicodeDecodeError:
        # Its own words quote a byte of the password.
        raise BadConfiguration(
            f'spdk_rpc_password_file {path} is no UTF-8 text'
        ) from None
    except OSError as e:
        raise BadConfiguration(
            f'spdk_rpc_password_file {path} cannot be read: {e.strerror}'
        ) from None
    if not password:
        raise BadConfiguration(f'spdk_rpc_password_file {path} is empty')
    return password


def nvmf_portals(conf: Any) -> tuple[portals.Portal, ...]:
    """Where hosts reach the target over NVMe-oF.

    :param conf: the back end's section
    :raises BadConfiguration: names the option and what it takes
    """
    try:
        return portals.parse(conf.spdk_nvmf_portals)
    except exceptions.Conflict as e:
        raise BadConfiguration(f'spdk_nvmf_portals: {e}') from None


def check_methods(target: spdk_target.Target, nvmeof: bool = False) -> None:
    """Check what a target can do.

    :param nvmeof: whether volumes are exported over NVMe-oF, too
    :raises BadConfiguration: its SPDK is too old or built without something
        that is needed
    """
    version, methods = target.find_all(app.get_version(), app.get_methods())
    missing = sorted(REQUIRED_METHODS - methods)
    if missing or version.number < OLDEST:
        lack = f' does not have {", ".join(missing)}' if missing else ' is old'
        raise BadConfiguration(
            f'{version.text} at {target.url}{lack}; SPDK '
            f'{OLDEST[0]}.{OLDEST[1]:02} or newer, built with vhost, is needed'
        )
    missing = sorted(NVMEOF_METHODS - methods)
    if nvmeof and missing:
        raise BadConfiguration(
            f'spdk_nvmf_portals is set, and {version.text} at {target.url} '
            f'does not have {", ".join(missing)}; an application with the '
            f'NVMe-oF target, such as spdk_tgt, is needed'
        )
    if not methods >= LIMITING_METHODS:
        LOG.warning(
            '%s has no NVMe-oF target: limits of a volume that has had some '
            'cannot change while it is idle',
            target.url,
        )
    LOG.info(
        '%(url)s is %(version)s',
        {'url': target.url, 'version': version.text},
    )
