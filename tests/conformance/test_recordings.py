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

"""The embedded target answers as the recordings of a real one do."""

import shutil
import unittest

from tests.conformance import process, replay
from tests.conformance.differences import EXPECTED_DIFFERENCES
from tests.conformance.scenarios import SCENARIOS


class RecordingsTest(unittest.TestCase):
    """One test a recording."""

    maxDiff = None

    def setUp(self) -> None:
        directory = process.temporary_directory()
        self.addCleanup(shutil.rmtree, directory)
        self.replay = replay.Replay(directory)
        self.addCleanup(self.replay.close)
        self.replay.start()

    def check(self, recording: str) -> None:
        """Replay a recording after those that it follows."""
        scenario = SCENARIOS[recording]
        for earlier in scenario.after:
            for _ in self.replay.run(earlier, SCENARIOS[earlier]):
                pass
        wrong = {}
        for number, case, found in self.replay.run(recording, scenario):
            expected = EXPECTED_DIFFERENCES.get((recording, number))
            if found is not None and expected is None:
                wrong[number, case] = found
            elif found is None and expected is not None:
                wrong[number, case] = f'agrees, though listed: {expected}'
        self.assertEqual({}, wrong)


def _add_test(recording: str) -> None:
    def test(self: RecordingsTest) -> None:
        self.check(recording)

    name = f'test_{recording.replace("-", "_")}'
    test.__name__ = name
    setattr(RecordingsTest, name, test)


for _recording in SCENARIOS:
    _add_test(_recording)


class CountTest(unittest.TestCase):
    """How much of the recordings is covered."""

    def test_most_cases_agree(self) -> None:
        cases = {
            (recording, case['n'])
            for recording in SCENARIOS
            for case in replay.load(recording)
        }
        self.assertEqual(set(), set(EXPECTED_DIFFERENCES) - cases)
        agreeing = len(cases) - len(EXPECTED_DIFFERENCES)
        self.assertGreaterEqual(agreeing, 1389)
