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

"""Rate limits of a bdev, as SPDK has them."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request

# What SPDK rounds IOPS limits up to.
IOPS_STEP = 1000


@dataclasses.dataclass(frozen=True)
class RateLimits:
    """The four limits that a bdev can have; 0 is unlimited.

    :ivar rw_ios_per_sec: reads and writes together, a multiple of 1,000
    :ivar rw_mbytes_per_sec: MiB/s, reads and writes together
    :ivar r_mbytes_per_sec: MiB/s, reads
    :ivar w_mbytes_per_sec: MiB/s, writes
    """

    rw_ios_per_sec: int = 0
    rw_mbytes_per_sec: int = 0
    r_mbytes_per_sec: int = 0
    w_mbytes_per_sec: int = 0

    @classmethod
    def parse(cls, data: Mapping[str, int]) -> 'RateLimits':
        names = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: data.get(name, 0) for name in names})

    def as_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    def __bool__(self) -> bool:
        """Whether anything is limited at all."""
        return any(self.as_dict().values())


def set_limits(name: str, limits: RateLimits) -> Request[Any]:
    """Set all four limits of a bdev.

    A bdev that has limits and no open I/O channel refuses a second set
    with TryAgain, even of zeros (spdk issue 3768).
    """
    return Request('bdev_set_qos_limit', {'name': name, **limits.as_dict()})
