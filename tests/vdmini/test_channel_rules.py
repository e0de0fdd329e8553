"""Channel rules as text: what is written is read, and what is wrong is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini.channels import IMPORTANCES, ChannelRule, parse_channel_rule
from vdmini.errors import PlanError


@given(
    importance=st.sampled_from(IMPORTANCES),
    ratio=st.floats(0, 1, exclude_min=True, exclude_max=True),
    pair_gates=st.booleans(),
)
def test_every_channel_rule_is_read_as_it_is_written(importance: str, ratio: float, pair_gates: bool) -> None:
    rule = ChannelRule(importance, ratio, pair_gates)
    assert parse_channel_rule(str(rule)) == rule


def test_channel_rules_have_defaults_and_one_way_to_be_written() -> None:
    assert parse_channel_rule("magnitude") == ChannelRule("magnitude", 0.2, False)
    rule = parse_channel_rule("depgraph-l2:pair_gates=1,ratio=3e-1")
    assert rule == ChannelRule("depgraph-l2", 0.3, True)
    assert str(rule) == "depgraph-l2:ratio=0.3,pair_gates=1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "depgraf-l2",
            "unknown channel rule 'depgraf-l2' \\(did you mean 'depgraph-l2'\\?\\): choose one of depgraph-l2,",
        ),
        ("", "unknown channel rule ''"),
        ("magnitude:rato=0.3", "no option 'rato' \\(did you mean 'ratio'\\?\\): it takes ratio, pair_gates"),
        ("magnitude:0.3", "no option '0.3'"),
        ("magnitude:ratio", "ratio='' is no number: write for instance magnitude:ratio=0.2"),
        ("magnitude:ratio=0.2,", "no option ''"),
        ("magnitude:ratio=1", "ratio=1 is no share: choose between 0 and 1"),
        ("magnitude:ratio=nan", "ratio=nan is no share"),
        ("magnitude:pair_gates=2", "pair_gates=2 is neither 1 nor 0"),
    ],
)
def test_a_wrong_channel_rule_is_named(text: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        parse_channel_rule(text)


def test_a_wider_tolerance_is_part_of_the_rule() -> None:
    rule = parse_channel_rule("depgraph-l2:tolerance=0.1,ratio=0.2")
    assert (rule.ratio, rule.tolerance) == (0.2, 0.1)
    assert parse_channel_rule(str(rule)) == rule
    with pytest.raises(PlanError, match="tolerance=2 is no share"):
        parse_channel_rule("magnitude:tolerance=2")
