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

"""File locks in a directory of their own, for one test."""

from collections.abc import Iterator
import contextlib
from unittest import mock

from cinder import coordination
import fixtures

from tests.fixtures import driver


class Locks(fixtures.Fixture):
    """:ivar path: the directory"""

    def _setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        driver.start_coordination(stack)


@contextlib.contextmanager
def broken(error: Exception) -> Iterator[None]:
    """No lock can be had."""
    with mock.patch.object(
        coordination.COORDINATOR, 'get_lock', side_effect=error
    ):
        yield
