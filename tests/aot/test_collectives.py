"""Collectives: mesh axes from every notation of groups, bytes, and splitted fusions of TPUs."""

import pytest

from aot.collectives import collectives, replica_groups
from aot.hlo import Program

MESH = {"data": 2, "fsdp": 2, "tensor": 2}  # device = 4 data + 2 fsdp + tensor


def program(instruction: str) -> Program:
    return Program(
        "HloModule m\n\nENTRY %main (p: f32[4,8]) -> f32[8,8] {\n"
        "  %p = f32[4,8]{1,0} parameter(0)\n"
        f"  ROOT %r = {instruction}\n}}\n"
    )


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", "tensor"),
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", "fsdp"),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", "data"),
        ("replica_groups=[2,4]<=[8]", "fsdp+tensor"),
        ("replica_groups=[2,4]<=[2,2,2]T(2,0,1)", "data+fsdp"),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'b'}", "fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", "data"),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", "fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", "tensor"),
        ("replica_groups=mesh['a'=8] {'a'}", "data+fsdp+tensor"),
        ("channel_id=1", "data+fsdp+tensor"),
        ("replica_groups={{0,3},{1,2},{4,7},{5,6}}", "other"),
    ],
)
def test_the_axes_of_a_group(groups, axes):
    (found,) = collectives(program(f"f32[4,8]{{1,0}} all-reduce(%p), {groups}"), MESH)
    assert (found.kind, found.axes, found.executions, found.bytes) == ("all-reduce", axes, 1, 128)
    assert not found.in_loop and found.counted


def test_groups_partition_the_devices():
    for text in ("replica_groups=[4,2]<=[2,4]T(1,0)", "replica_groups=mesh['a'=2,'b'=4] {'b'}", ""):
        groups = list(replica_groups(text, 8))
        assert sorted(device for group in groups for device in group) == list(range(8))


@pytest.mark.parametrize(
    ("pairs", "axes"),
    [
        ("{{0,1},{1,0},{2,3},{3,2}}", "tensor"),
        ("{{0,4},{4,0}}", "data"),
        ("{{0,3}}", "fsdp+tensor"),
    ],
)
def test_the_axes_of_a_permutation(pairs, axes):
    text = f"f32[4,8]{{1,0}} collective-permute(%p), source_target_pairs={pairs}"
    (found,) = collectives(program(text), MESH)
    assert found.axes == axes


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("f32[8,8]{1,0} all-gather(%p), dimensions={0}", 256),
        ("(f32[4,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%p), dimensions={0}", 256),
        ("f32[2,8]{1,0} reduce-scatter(%p), dimensions={0}", 128),
        ("f32[4,8]{1,0} all-reduce-start(%p), to_apply=%add", 128),
    ],
)
def test_bytes_are_those_of_the_larger_side(instruction, expected):
    (found,) = collectives(program(instruction), MESH)
    assert found.bytes == expected


def test_the_end_of_an_asynchronous_collective_is_not_counted_again():
    assert collectives(program("f32[8,8]{1,0} all-gather-done(%p)"), MESH) == []


def test_a_collective_that_a_tpu_splits_into_fusions_counts_once():
    fusion = """
%%%s (p: f32[4,8]) -> f32[8,8] {
  %%p = f32[4,8]{1,0} parameter(0)
  %%g = f32[8,8]{1,0} all-gather(%%p), channel_id=3, replica_groups=[4,2]<=[8], dimensions={0}
  ROOT %%c = f32[8,8]{1,0} custom-call(%%g), custom_call_target="AsyncCollective%s"
}
"""
    text = (
        "HloModule m\n"
        + fusion % ("start", "Start")
        + fusion % ("done", "Done")
        + """
ENTRY %main (p: f32[4,8]) -> f32[8,8] {
  %p = f32[4,8]{1,0} parameter(0)
  %a = f32[8,8]{1,0} fusion(%p), kind=kCustom, calls=%start
  ROOT %b = f32[8,8]{1,0} fusion(%p), kind=kCustom, calls=%done
}
"""
    )
    (found,) = collectives(Program(text), MESH)
    assert (found.executions, found.bytes, found.axes) == (1, 256, "tensor")
