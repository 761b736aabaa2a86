"""The table of planted faults fits the package as it is now."""

import runpy

import pytest

from fixtures.repository import ROOT

FAULTS = runpy.run_path(str(ROOT / "tools" / "planted_faults.py"))["FAULTS"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_stands_once_and_its_tests_are_there(fault) -> None:
    text = (ROOT / "src" / "threedrs" / fault.file).read_text()
    assert text.count(fault.old) == 1, "write the line as it is now into tools/planted_faults.py"
    assert (ROOT / "tests" / "unit" / fault.tests.partition("::")[0]).is_file()
    assert fault.new not in ("", fault.old) or fault.file == "inputs/archives.py"
