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

"""The same tests with everything patched by eventlet.

In a process of their own: patching can't be undone.
"""

import subprocess
import sys

from oslotest import base

MODULES = (
    'test_answers',
    'test_deadlines',
    'test_http',
    'test_https',
    'test_loss',
    'test_threads',
)

PROGRAM = """
import eventlet
eventlet.monkey_patch()
import sys
import unittest

for module in ('select', 'socket', 'thread', 'time'):
    assert eventlet.patcher.is_monkey_patched(module), module

suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
assert suite.countTestCases() > 50
result = unittest.TextTestRunner(verbosity=2).run(suite)
sys.exit(not result.wasSuccessful())
"""


class EventletTest(base.BaseTestCase):
    def test_everything_once_more(self):
        package = __name__.rpartition('.')[0]
        done = subprocess.run(
            [
                sys.executable,
                '-W',
                'ignore',
                '-c',
                PROGRAM,
                *(f'{package}.{module}' for module in MODULES),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
