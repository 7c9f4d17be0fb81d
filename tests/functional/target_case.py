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

"""Tests on a target, with a tap on the way to it."""

import contextlib
import pathlib
import shutil
import tempfile
from typing import ClassVar

from oslotest import base

from tests.fixtures import target as target_fixture
from tests.fixtures.tap import Tap


class TargetTestCase(base.BaseTestCase):
    """A target and a tap for the class.

    A subclass starts what else its tests need in :meth:`start_more`.
    """

    target: ClassVar[target_fixture.Target]
    tap: ClassVar[Tap]
    _stack: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        with contextlib.ExitStack() as stack:
            directory = pathlib.Path(tempfile.mkdtemp(prefix='spdk-'))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            cls.target = target_fixture.start(directory / 'spdk')
            stack.callback(cls.target.stop)
            cls.tap = stack.enter_context(
                Tap(str(directory / 'tap.sock'), cls.target.url)
            )
            cls.start_more(directory, stack)
            cls._stack = stack.pop_all()

    @classmethod
    def start_more(
        cls, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        """Start it, and put its end on the stack."""

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()
