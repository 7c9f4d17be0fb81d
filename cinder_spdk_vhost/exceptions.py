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

"""What this package itself refuses; free of Cinder, for every host."""


class SpdkVhostError(Exception):
    """Base of this package's own errors."""


class InvalidName(SpdkVhostError):
    """A name that SPDK would take and nobody could use safely."""


class InUse(SpdkVhostError):
    """Somebody has it open, or it is claimed."""


class Conflict(SpdkVhostError):
    """What is there and what is asked for do not go together."""


class PoolDown(SpdkVhostError):
    """A pool that the target does not have, or not yet."""


class Postponed(SpdkVhostError):
    """It cannot be done now, for a reason that will pass."""


class InvalidSpec(SpdkVhostError):
    """A QoS or extra spec that cannot be kept as it stands."""
