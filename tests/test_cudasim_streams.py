"""Stream order on emulated devices: every forgotten event is reported, and no order that is given."""

import gc

import numpy as np
import pytest

import minigrad
from minigrad.cudasim import compiler
from minigrad.cudasim.streams import HOST, Access, Stream
from minigrad.errors import KernelError

# ---------------------------------------------------------------- clocks alone


@pytest.fixture
def two():
    return Stream("one"), Stream("two")


def test_one_stream_is_in_order(two):
    one, memory = two[0], Access("memory")
    for _ in range(3):
        one.touch("write", [], [memory])
        one.touch("read", [memory], [])


def test_read_after_write_on_another_stream(two):
    one, other = two
    memory = Access("memory 7")
    one.touch("write", [], [memory])
    with pytest.raises(KernelError, match="read on stream two:\nSTREAM-ORDER: uses memory 7, which stream one wrote"):
        other.touch("read", [memory], [])
    other.wait(one.record())
    other.touch("read", [memory], [])


def test_an_event_recorded_too_early_does_not_help(two):
    one, other = two
    memory, event = Access("memory"), one.record()
    one.touch("write", [], [memory])
    other.wait(event)
    with pytest.raises(KernelError, match="STREAM-ORDER"):
        other.touch("read", [memory], [])


def test_write_after_read_and_write_after_write(two):
    one, other = two
    memory = Access("memory")
    one.touch("write", [], [memory])
    other.wait(one.record())
    other.touch("read", [memory], [])
    with pytest.raises(KernelError, match="overwrites memory, which stream two may still be reading"):
        one.touch("write again", [], [memory])
    one.wait(other.record())
    one.touch("write again", [], [memory])
    with pytest.raises(KernelError, match="uses memory, which stream one wrote"):
        other.touch("write", [], [memory])


def test_events_pass_on_what_was_waited_for():
    """three waits for two, which waited for one: so three comes after one."""
    one, two, three = (Stream(name) for name in ("one", "two", "three"))
    memory = Access("memory")
    one.touch("write", [], [memory])
    two.wait(one.record())
    three.wait(two.record())
    three.touch("read", [memory], [])


def test_synchronize_orders_all_that_follows(two):
    one, other = two
    memory = Access("memory")
    one.touch("write", [], [memory])
    one.synchronize()
    other.touch("read", [memory], [])
    assert HOST.clock[one.number] == 1


def test_two_readers_need_no_order(two):
    one, other = two
    memory = Access("memory")
    one.touch("write", [], [memory])
    one.synchronize()
    one.touch("read", [memory], [])
    other.touch("read", [memory], [])


def test_freed_while_another_stream_reads(two):
    one, other = two
    memory = Access("memory 3")
    one.touch("write", [], [memory])
    other.wait(one.record())
    other.touch("read", [memory], [])
    one.freed(memory)
    with pytest.raises(KernelError, match="memory 3 was freed while stream two may use it"):
        one.touch("next", [], [Access("other")])
    one.touch("after that", [], [Access("other")])  # reported once


def test_freed_after_its_readers(two):
    one, other = two
    memory = Access("memory")
    one.touch("write", [], [memory])
    other.wait(one.record())
    other.touch("read", [memory], [])
    one.wait(other.record())
    one.freed(memory)
    one.synchronize()


# ---------------------------------------------------------------- devices

needs_compiler = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))


@pytest.fixture
def sims():
    return [minigrad.device(f"cudasim:{i}").runtime for i in range(2)]


@needs_compiler
def test_copies_between_devices_are_in_order(sims):
    first, second = sims
    for _ in range(3):
        x = first.from_host(np.arange(6.0).reshape(2, 3).T)
        y = second.copy_from(first, x)
        del x
        gc.collect()
        np.testing.assert_array_equal(second.to_host(y), np.arange(6.0).reshape(2, 3).T)
        assert y.strides == (8, 24)
    first.synchronize()


@needs_compiler
def test_a_copy_without_events_is_reported(sims, monkeypatch):
    first, second = sims
    x = first.from_host(np.arange(6.0))
    monkeypatch.setattr(Stream, "wait", lambda self, event: None)
    with pytest.raises(KernelError, match="STREAM-ORDER"):
        second.copy_from(first, x)
    monkeypatch.undo()


@needs_compiler
def test_memory_that_goes_back_while_it_is_being_copied(sims, monkeypatch):
    first, second = sims
    x = first.from_host(np.arange(6.0))
    wait = Stream.wait
    monkeypatch.setattr(Stream, "wait", lambda self, event: wait(self, event) if self is not first.stream else None)
    y = second.copy_from(first, x)  # now `first` has not waited for the copy
    del x
    gc.collect()
    monkeypatch.undo()
    with pytest.raises(KernelError, match="freed while stream cudasim:1 may use it"):
        first.synchronize()
    np.testing.assert_array_equal(second.to_host(y), np.arange(6.0))
