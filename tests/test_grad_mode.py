"""no_grad as a block and as a decorator, of functions, generators and coroutines."""

import asyncio
import inspect

import numpy as np
import pytest

from minigrad import ArgumentError, Tensor, is_grad_enabled, no_grad


@pytest.fixture
def w():
    return Tensor(np.ones(3), requires_grad=True)


def test_a_block_and_one_inside_another():
    assert is_grad_enabled()
    with no_grad() as nothing:
        assert nothing is None and not is_grad_enabled()
        with no_grad():
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        with no_grad():
            1 / 0  # noqa: B018
    assert is_grad_enabled()


def test_one_object_used_again_inside_itself():
    block = no_grad()
    with block:
        with block:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_a_function_keeps_its_name_arguments_and_result(w):
    @no_grad()
    def double(x, factor=2):
        "twice"
        return x * factor

    assert (double.__name__, double.__doc__) == ("double", "twice")
    assert not double(w).requires_grad and double(w, factor=3).numpy().tolist() == [3, 3, 3]
    assert is_grad_enabled()


def test_methods_of_all_kinds(w):
    class Net:
        @no_grad()
        def plain(self, x):
            return x * 2

        @staticmethod
        @no_grad()
        def static(x):
            return x * 2

        @classmethod
        @no_grad()
        def of_class(cls, x):
            return x * 2

    for method in (Net().plain, Net.static, Net.of_class):
        assert not method(w).requires_grad


def test_a_generator_records_nothing_and_its_caller_does(w):
    @no_grad()
    def steps(x):
        for factor in (1.0, 2.0):
            assert not is_grad_enabled()
            yield x * factor

    assert inspect.isgenerator(steps(w))
    seen = []
    for y in steps(w):
        seen.append(y.requires_grad)
        assert is_grad_enabled() and (w * 2).requires_grad  # between its lines, the caller's rules
    assert seen == [False, False]


def test_a_generator_is_spoken_to_as_ever(w):
    said = []

    @no_grad()
    def talk():
        try:
            said.append((yield "first"))
            try:
                yield "second"
            except KeyError:
                said.append(is_grad_enabled())
            got = yield from iter(["third"])
            said.append(got)
            return "result"
        finally:
            said.append(("closed", is_grad_enabled()))

    generator = talk()
    assert next(generator) == "first" and generator.send("hello") == "second"
    assert generator.throw(KeyError) == "third"
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "result" and said == ["hello", False, None, ("closed", False)]

    said.clear()
    unfinished = talk()
    next(unfinished)
    unfinished.close()
    assert said == [("closed", False)] and is_grad_enabled()

    failing = talk()
    next(failing)
    with pytest.raises(ZeroDivisionError):
        failing.throw(ZeroDivisionError)
    assert is_grad_enabled()


def test_a_coroutine_records_nothing_and_tasks_beside_it_do(w):
    seen = {}

    @no_grad()
    async def without(name):
        seen[name] = (w * 2).requires_grad
        await asyncio.sleep(0.01)
        seen[name + " later"] = (w * 2).requires_grad
        return name

    async def beside():
        await asyncio.sleep(0.005)
        seen["beside"] = (w * 2).requires_grad

    async def whole():
        assert await asyncio.gather(without("a"), beside()) == ["a", None]
        assert await without("b") == "b" and is_grad_enabled()

    assert inspect.iscoroutinefunction(without)
    asyncio.run(whole())
    assert seen == {"a": False, "a later": False, "beside": True, "b": False, "b later": False}


def test_what_it_does_not_decorate():
    async def stream():
        yield 1

    with pytest.raises(ArgumentError, match=r"no_grad: stream is an asynchronous generator: put `with no_grad\(\):`"):
        no_grad()(stream)

    class Net:
        def forward(self):
            pass

    with pytest.raises(ArgumentError, match="no_grad: decorates functions, got the class Net: decorate its methods"):
        no_grad()(Net)
    for wrapped in (staticmethod(len), classmethod(len), property(len)):
        with pytest.raises(ArgumentError, match="below the other decorator"):
            no_grad()(wrapped)
    with pytest.raises(ArgumentError, match="got a int"):
        no_grad()(7)


def test_no_grad_without_brackets(w):
    @no_grad
    def double(x):
        return x * 2

    assert double.__name__ == "double" and not double(w).requires_grad and is_grad_enabled()
    with pytest.raises(ArgumentError, match="got a int"):
        no_grad(7)
