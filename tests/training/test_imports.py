import gc
import importlib
import sys

import pytest

from training.errors import EncoreError
from training.imports import lasting


def test_what_is_imported_is_no_business_of_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = gc.get_freeze_count()
    with lasting():
        assert not gc.isenabled()
        importlib.import_module("colorsys")
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_without_an_import_nothing_is_kept() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(EncoreError), lasting():
        raise EncoreError("not found")
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
