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

"""SPDK's limits in the words of QEMU's throttle groups."""

from cinder_spdk_vhost.embedded import qos

_MIB = 1 << 20


def for_qemu(limits: qos.Limits) -> dict[str, int]:
    """All limits of a throttle group, 0 where there is none.

    :param limits: as :data:`qos.NAMES` has them: I/Os a second, then MiB a
        second in all, read and written

    QEMU takes no limit on the total beside one on a direction: there the
    lower one holds for each direction.
    """
    ios, total, read, write = limits
    if total and (read or write):
        read = min(total, read or total)
        write = min(total, write or total)
        total = 0
    return {
        'iops-total': ios,
        'bps-total': total * _MIB,
        'bps-read': read * _MIB,
        'bps-write': write * _MIB,
    }
