"""Float flags accept only finite numbers."""

import pytest
from absl import flags

from experiments.float_flags import define_float
from tests.experiments.commands import ROOT


def test_commands_define_no_unchecked_float_flags():
    for folder in "experiments", "benchmarks":
        for file in (ROOT / folder).rglob("*.py"):
            assert "flags.DEFINE_float" not in file.read_text(), file


def test_nan_and_infinity_are_rejected():
    holder = define_float("a_number_of_this_test", 1.0, "A number.", 0.5, 2.0)
    flag = flags.FLAGS[holder.name]
    try:
        assert flag.value == 1.0 and flag.flag_type() == "float"
        assert "experiments.float_flags" not in flags.FLAGS.find_module_defining_flag(holder.name)
        for text in "nan", "inf", "-inf", "1e999", "0.4", "2.1":
            with pytest.raises(flags.IllegalFlagValueError, match="is not a finite number in the"):
                flag.parse(text)
        flag.parse("1.5")
        assert flag.value == 1.5
    finally:
        delattr(flags.FLAGS, holder.name)
