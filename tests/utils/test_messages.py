"""Warnings point at the line of the caller."""

import functools

import pytest
from helpers import aia_map, six
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import ChannelStack, prepare
from sunpy_deepem.utils.messages import warn_user


def test_direct_call():
    with pytest.warns(SunpyUserWarning, match="hello") as caught:
        warn_user("hello")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(prepare, six([[1.0]]), spikes=True),
        functools.partial(ChannelStack.from_maps, [aia_map(94, [[1.0]], lvl_num=1), *six([[1.0]])[1:]]),
    ],
    ids=["prepare", "ChannelStack.from_maps"],
)
def test_nested_call(call):
    with pytest.warns(SunpyUserWarning) as caught:
        call()
    assert caught[0].filename == __file__
