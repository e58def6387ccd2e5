"""Reading program texts: instructions, loops, trip counts, branches, and estimated cycles."""

import pytest

from aot.cycles import TOP_K, component, estimated_cycles
from aot.hlo import Program, shape_bytes

CYCLES = 'backend_config={"estimated_cycles":"%d"}'
TEXT = """HloModule jit_step, is_scheduled=true

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %m = f32[8,128]{1,0} multiply(%p, %p), metadata={op_name="jit(step)/x/norm/mul"}
}

%body (c: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %c = (s32[], f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[8,128]{1,0} get-tuple-element(%c), index=1
  %f = f32[8,128]{1,0} fusion(%x), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/decoder/feed_forward/mul"}, backend_config={"estimated_cycles":"10"}
  ROOT %t = (s32[], f32[8,128]{1,0}) tuple(%i, %f)
}

%condition (c: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[] constant(7)
  %c = (s32[], f32[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%skip (a: f32[8,128]) -> f32[8,128] {
  ROOT %a = f32[8,128]{1,0} parameter(0)
}

%update (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  ROOT %n = f32[8,128]{1,0} negate(%a), \
metadata={op_name="jit(step)/cond/branch_1_fun/neg"}, backend_config={"estimated_cycles":"100"}
}

ENTRY %main (p: f32[8,128], q: pred[]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %q = pred[] parameter(1)
  %zero = s32[] constant(0)
  %tuple = (s32[], f32[8,128]{1,0}) tuple(%zero, %p)
  %while = (s32[], f32[8,128]{1,0}) while(%tuple), condition=%condition, body=%body
  %y = f32[8,128]{1,0} get-tuple-element(%while), index=1
  %copy = f32[8,128]{0,1} copy(%y), backend_config={"estimated_cycles":"3"}
  ROOT %r = f32[8,128]{1,0} conditional(%q, %copy, %copy), branch_computations={%skip, %update}
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    cycles = estimated_cycles(Program(TEXT))
    assert cycles.components == {"optimizer": 100, "feed-forward": 70, "other": 3}
    assert cycles.total == 173 and not cycles.per_pass and not cycles.kernels


def test_a_loop_whose_length_depends_on_data_is_reported_per_pass():
    text = TEXT.replace("%limit = s32[] constant(7)", "%limit = s32[] parameter(1)")
    cycles = estimated_cycles(Program(text))
    assert cycles.components == {"optimizer": 100, "other": 3}
    assert cycles.per_pass == {"while": {"feed-forward": 10}}


def test_the_compilers_trip_count_is_preferred():
    text = TEXT.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"4"},"x":1}'
    )
    program = Program(text)
    (loop,) = [i for i in program.computations["main"] if i.opcode == "while"]
    assert program.trip_count(loop) == 4 and Program(TEXT).trip_count(loop) == 4


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("bf16[3]", 6),
        ("(s32[], f32[2,2]{1,0}, /*index=2*/pred[5])", 4 + 16 + 5),
        ("f8e4m3fn[16]", 16),
        ("token[]", 0),
        ("s4[16]", 8),
    ],
)
def test_bytes_of_a_shape(shape, expected):
    assert shape_bytes(shape) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jit(step)/jvp(T.features)/T.encode/encoder_0/attention_residual/norm/mul", "norms"),
        ("a/decoder_1/self_residual/self_attention.dot_product_attention/exp", "attention core"),
        ("a/decoder_1/self_residual/self_attention.qkv/self_attention._project/dot", "projections"),
        ("a/decoder_1/cross_residual/cross_attention.attend/x.project_out/dot", "projections"),
        (
            "a/decoder_1/feed_forward_residual/feed_forward/hidden/hidden/dot_general",
            "feed-forward",
        ),
        ("a/decoder_1/feed_forward_residual/norm/mul", "norms"),
        ("a/decoder_1/self_residual/Dropout_0/ge", "dropout"),
        ("jit(step)/jvp(loss)/shard_map/while/body/closed_call/reduce_max", "logits and loss"),
        ("jit(step)/cond/branch_1_fun/add", "optimizer"),
        ("jit(step)/div", "optimizer"),
        ("a/T._decode/T._embed/target_positions/stack", "embedding"),
        ("jit(_sharded_search)/shard_map/steps_to_64/while/body/top_k", "ranking of candidates"),
        ("", "other"),
    ],
)
def test_the_component_of_an_operation(name, expected):
    assert component(name) == expected


def test_top_k_counts_as_one_read_of_its_operand():
    text = """HloModule m
ENTRY %main (x: f32[16,1024]) -> (f32[16,8], s32[16,8]) {
  %x = f32[16,1024]{1,0} parameter(0)
  ROOT %t = (f32[16,8]{1,0}, s32[16,8]{1,0}) custom-call(%x), custom_call_target="TopK"
}
"""
    cycles = estimated_cycles(Program(text), bytes_per_cycle=64.0)
    assert cycles.components == {TOP_K: 16 * 1024 * 4 // 64}
    assert not estimated_cycles(Program(text)).components
