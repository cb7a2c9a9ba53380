from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amfast.errors import RunError
from amfast.exchange.names import class_of, file_stem

LABELS = ("tiger shark, Galeocerdo cuvieri", "crane", "ice_skating_rink/outdoor", "crane", "星")


@pytest.mark.parametrize(
    ("name", "class_id"),
    [
        ("000_tigershark", 0),
        ("0_Galeocerdo cuvieri", 0),
        ("<tiger-shark>", 0),
        ("tiger shark, Galeocerdo cuvieri", 0),
        ("002_iceskatingrinkoutdoor", 2),
        ("003_crane", 3),
        ("004_class", 4),
    ],
)
def test_names_that_people_write(name: str, class_id: int) -> None:
    assert class_of(name, LABELS, "it") == class_id


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("000_crane", "it is of class 0, 'crane', and class 0 is 'tiger shark, .*--classifier"),
        ("5_crane", "it is of class 5, which does not exist: ids run from 0 to 4"),
        ("00", "it is called by a number alone"),
        ("<crane>", "it may be of class 1 or 3: say which one by its number, such as 001_crane"),
        ("tigre shark", "it is of an unknown class, 'tigre shark'"),
        ("crain", "did you mean crane"),
        ("<>", "unknown class, ''"),
        ("///", "unknown class"),
    ],
)
def test_names_that_mean_nothing(name: str, said: str) -> None:
    with pytest.raises(RunError, match=said):
        class_of(name, LABELS, "it")


def test_numbers_for_labels_go_with_any_name() -> None:
    assert class_of("001_tigershark", ("0", "1"), "it") == 1


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_what_a_label_is_called_leads_back_to_it(labels: list[str]) -> None:
    for class_id, label in enumerate(labels):
        stem = file_stem(class_id, label)
        assert class_of(stem, labels, "it") == class_id
        assert stem.isascii() and "/" not in stem and len(stem) <= 68
